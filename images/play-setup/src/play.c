/*
 * play-setup: a program that plays the part of Windows' setup, and is none.
 *
 * It runs in real mode on the BIOS alone and does what the lab's installation relies on: reads
 * WINNT.SIF from the floppy through int 13h, checks it, finds the $OEM$ folder on the CD, makes
 * the hard disk start itself, restarts, and walks the steps of STEPS.TXT with the serial lines
 * that the real scripts print. PLAY.TXT on the CD orders failures: lines of STEP ACTION TIMES.
 *
 * Sources: Ralf Brown's interrupt list (int 10h, 13h, 1Ah); Microsoft, "FAT: General Overview
 * of On-Disk Format" 1.03; ECMA-119 (ISO 9660) 8.4 and 9.1; National Semiconductor PC16550D.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

/* Below the program, in the first 64 KiB; the stack grows down from 0x7C00. */
#define FILE_BUFFER ((u8 *)0x1000)
#define FILE_SIZE 0x4000
#define SECTOR_BUFFER ((u8 *)0x5000)
#define FAT_BUFFER ((u8 *)0x5800)
#define FAT_SIZE 0x1200

#define IMAGE ((u8 *)0x7C00)
#define IMAGE_SECTORS 64
#define STATE_SECTOR 64
#define HARD_DISK 0x80

enum { TEXT_MODE, GUI_MODE, FIRST_BOOT };

#define MAX_STEPS 16
#define NAME 24
#define MAX_ORDERS 8

struct step {
    char name[NAME];
    u8 reboots, attempts;
};

struct order {
    char step[NAME], action[16];
    u8 times;
};

/* One sector of the hard disk. */
struct state {
    char magic[8];
    u16 phase, boots, port, step, steps, orders;
    u8 gui_attempts;
    struct step step_list[MAX_STEPS];
} __attribute__((packed));

union {
    struct state s;
    u8 bytes[512];
} disk;

union {
    struct order list[MAX_ORDERS];
    u8 bytes[512];
} orders;

_Static_assert(sizeof(struct state) <= 512, "the state fits a sector");
_Static_assert(sizeof(struct order) * MAX_ORDERS <= 512, "the orders fit a sector");

static const char magic[8] = "PLAY001";
static u8 cd_drive;

/* -- the machine ---------------------------------------------------------------------------- */

static inline void outb(u16 port, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void __attribute__((noreturn)) stop(void)
{
    for (;;)
        __asm__ volatile("sti; hlt");
}

static void __attribute__((noreturn)) reset(void)
{
    /* 8042 command 0xFE pulses the reset line. */
    while (inb(0x64) & 2)
        ;
    outb(0x64, 0xFE);
    stop();
}

/* int 10h and 13h, in start.S. */
struct registers {
    u32 ax, bx, cx, dx, si, carry;
};
void __attribute__((regparm(1))) bios10(struct registers *);
void __attribute__((regparm(1))) bios13(struct registers *);

/* The BIOS' clock at 0040:006C, 18.2 a second; volatile, so that nobody reasons about it. */
static volatile u32 *volatile clock = (volatile u32 *)0x46C;

static u32 ticks(void)
{
    return *clock;
}

static void pause_ticks(u32 count)
{
    u32 begin = ticks();
    while (ticks() - begin < count)
        __asm__ volatile("sti; hlt");
}

/* -- text ----------------------------------------------------------------------------------- */

static u32 length(const char *text)
{
    u32 n = 0;
    while (text[n])
        n++;
    return n;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

static int same(const char *a, const char *b)
{
    while (*a && lower(*a) == lower(*b))
        a++, b++;
    return lower(*a) == lower(*b);
}

static int same_n(const char *a, const char *b, u32 n)
{
    while (n && lower(*a) == lower(*b))
        a++, b++, n--;
    return !n;
}

static void copy(void *to, const void *from, u32 n)
{
    u8 *t = to;
    const u8 *f = from;
    while (n--)
        *t++ = *f++;
}

static void fill(void *to, u8 value, u32 n)
{
    volatile u8 *t = to;
    while (n--)
        *t++ = value;
}

/* -- the screen ----------------------------------------------------------------------------- */

static u8 attribute = 0x17;
static u8 row;

static void video(u32 ax, u32 bx, u32 cx, u32 dx)
{
    struct registers r = {ax, bx, cx, dx, 0, 0};
    bios10(&r);
}

static void clear_screen(u8 colours)
{
    video(0x0003, 0, 0, 0);
    attribute = colours;
    row = 0;
    /* No cursor (AH=01h): it would blink on what is read from the screen. */
    video(0x0100, 0, 0x2000, 0);
    /* AH=06h: scroll the whole window away. */
    video(0x0600, (u32)colours << 8, 0, 0x184F);
}

static void print(const char *text)
{
    u32 column;
    for (column = 0; text[column] && column < 80; column++) {
        video(0x0200, 0, 0, (u32)row << 8 | column);
        video(0x0900 | (u8)text[column], attribute, 1, 0);
    }
    row++;
}

static void title(void)
{
    clear_screen(0x17);
    print("pvlab play-setup (no Windows is here)");
    print("=====================================");
    row++;
}

/* -- the serial port ------------------------------------------------------------------------ */

static void serial_begin(void)
{
    u16 base = disk.s.port;
    outb(base + 1, 0);
    outb(base + 3, 0x80);
    outb(base + 0, 1); /* 115200 baud */
    outb(base + 1, 0);
    outb(base + 3, 3);
    outb(base + 2, 0xC7);
    outb(base + 4, 3);
}

static void serial(const char *text)
{
    while (*text) {
        while (!(inb(disk.s.port + 5) & 0x20))
            ;
        outb(disk.s.port, *text++);
    }
}

static void say(const char *step, const char *event, const char *detail)
{
    serial("@pvlab 1 ");
    serial(step);
    serial(" ");
    serial(event);
    if (*detail) {
        serial(" ");
        serial(detail);
    }
    serial("\r\n");
}

/* -- disks ---------------------------------------------------------------------------------- */

struct packet {
    u8 size, zero;
    u16 count, offset, segment;
    u32 low, high;
} __attribute__((packed));

static int extended(u8 function, u8 drive, u32 sector, u16 count, void *buffer)
{
    struct packet packet = {16, 0, count, (u16)(u32)buffer, 0, sector, 0};
    struct registers r = {(u32)function << 8, 0, 0, drive, (u32)&packet, 0};
    bios13(&r);
    return !r.carry;
}

static int hard_disk_there(void)
{
    struct registers r = {0x4100, 0x55AA, 0, HARD_DISK, 0, 0};
    bios13(&r);
    return !r.carry && (r.bx & 0xFFFF) == 0xAA55;
}

static void save(void)
{
    if (!extended(0x43, HARD_DISK, STATE_SECTOR, 1, disk.bytes)
        || !extended(0x43, HARD_DISK, STATE_SECTOR + 1, 1, orders.bytes)) {
        clear_screen(0x4F);
        print("play-setup: the hard disk cannot be written");
        stop();
    }
}

/* A sector of the floppy, by cylinder, head and sector: floppies have no extended read. */
static int floppy(u32 sector, void *buffer, u32 track, u32 heads)
{
    u32 tries;
    for (tries = 0; tries < 3; tries++) {
        struct registers r = {
            0x0201, (u32)buffer,
            (sector / (track * heads)) << 8 | (sector % track + 1),
            (sector / track % heads) << 8, 0, 0,
        };
        struct registers again = {0, 0, 0, 0, 0, 0};
        bios13(&r);
        if (!r.carry)
            return 1;
        bios13(&again);
    }
    return 0;
}

static u16 word(const u8 *at)
{
    return at[0] | (u16)at[1] << 8;
}

static u32 dword(const u8 *at)
{
    return word(at) | (u32)word(at + 2) << 16;
}

/* A file of the floppy's root folder into FILE_BUFFER; its size, or -1. */
static int floppy_file(const char *name83)
{
    u8 *boot = SECTOR_BUFFER;
    u32 track, heads, reserved, fats, fat_sectors, entries, per_cluster, root, data, n;
    if (!floppy(0, boot, 18, 2))
        return -1;
    track = word(boot + 24), heads = word(boot + 26);
    reserved = word(boot + 14), fats = boot[16], entries = word(boot + 17);
    fat_sectors = word(boot + 22), per_cluster = boot[13];
    if (word(boot + 11) != 512 || word(boot + 510) != 0xAA55 || !track || !heads
        || !per_cluster || fat_sectors * 512 > FAT_SIZE)
        return -1;
    root = reserved + fats * fat_sectors;
    data = root + entries * 32 / 512;
    for (n = 0; n < fat_sectors; n++)
        if (!floppy(reserved + n, FAT_BUFFER + n * 512, track, heads))
            return -1;
    for (n = 0; n < entries; n++) {
        u8 *entry = SECTOR_BUFFER + n % 16 * 32;
        u32 cluster, size, done = 0, i;
        if (n % 16 == 0 && !floppy(root + n / 16, SECTOR_BUFFER, track, heads))
            return -1;
        if (!entry[0])
            return -1;
        if ((entry[11] & 0x08) || !same_n((char *)entry, name83, 11))
            continue;
        cluster = word(entry + 26), size = dword(entry + 28);
        if (size > FILE_SIZE - 512)
            return -1;
        while (cluster >= 2 && cluster < 0xFF8 && done < size) {
            for (i = 0; i < per_cluster; i++, done += 512)
                if (!floppy(data + (cluster - 2) * per_cluster + i, FILE_BUFFER + done, track,
                            heads))
                    return -1;
            i = word(FAT_BUFFER + cluster * 3 / 2);
            cluster = cluster & 1 ? i >> 4 : i & 0xFFF;
        }
        if (done < size)
            return -1;
        FILE_BUFFER[size] = 0;
        return size;
    }
    return -1;
}

/* A file of the CD into FILE_BUFFER; its size, or -1. The path has no leading slash. */
static int cd_file(const char *path)
{
    u32 extent, size, at, n;
    if (!extended(0x42, cd_drive, 16, 1, SECTOR_BUFFER))
        return -1;
    extent = dword(SECTOR_BUFFER + 156 + 2), size = dword(SECTOR_BUFFER + 156 + 10);
    while (*path) {
        u32 part = 0, found = 0, folder = extent, left = size;
        while (path[part] && path[part] != '/')
            part++;
        for (; left && !found; folder++, left = left > 2048 ? left - 2048 : 0) {
            if (!extended(0x42, cd_drive, folder, 1, SECTOR_BUFFER))
                return -1;
            for (at = 0; at < 2048 && SECTOR_BUFFER[at]; at += SECTOR_BUFFER[at]) {
                u8 *record = SECTOR_BUFFER + at;
                const char *name = (char *)record + 33;
                u32 n = record[32];
                for (u32 i = 0; i < n; i++)
                    if (name[i] == ';')
                        n = i;
                if (n && name[n - 1] == '.')
                    n--;
                if (n == part && same_n(name, path, n)) {
                    extent = dword(record + 2), size = dword(record + 10);
                    found = 1;
                    break;
                }
            }
        }
        if (!found)
            return -1;
        path += part;
        if (*path)
            path++;
    }
    if (size > FILE_SIZE - 2048)
        return -1;
    for (n = 0; n * 2048 < size; n++)
        if (!extended(0x42, cd_drive, extent + n, 1, FILE_BUFFER + n * 2048))
            return -1;
    FILE_BUFFER[size] = 0;
    return size;
}

/* -- what files say ------------------------------------------------------------------------- */

static int blank(char c)
{
    return c == ' ' || c == '\t';
}

static int line_end(char c)
{
    return c == '\r' || c == '\n' || !c;
}

/* The value of a key in WINNT.SIF, in FILE_BUFFER, without quotes; 0 when it is not there. */
static int value(const char *section, const char *key, char *to, u32 room)
{
    const char *at = (char *)FILE_BUFFER;
    int inside = 0;
    while (*at) {
        while (blank(*at) || (line_end(*at) && *at))
            at++;
        if (*at == '[') {
            u32 n = length(section);
            inside = same_n(at + 1, section, n) && at[1 + n] == ']';
        } else if (inside && same_n(at, key, length(key))) {
            const char *p = at + length(key);
            while (blank(*p))
                p++;
            if (*p == '=') {
                u32 n = 0;
                p++;
                while (blank(*p) || *p == '"')
                    p++;
                while (!line_end(*p) && *p != '"' && n + 1 < room)
                    to[n++] = *p++;
                to[n] = 0;
                return 1;
            }
        }
        while (!line_end(*at))
            at++;
    }
    return 0;
}

static int is(const char *section, const char *key, const char *wanted)
{
    char text[64];
    return value(section, key, text, sizeof text) && same(text, wanted);
}

static void __attribute__((noreturn)) refuse(const char *why)
{
    fill(FILE_BUFFER, 0, FILE_SIZE);
    row++;
    print("Setup cannot continue. play-setup:");
    print(why);
    stop();
}

static void __attribute__((noreturn)) licence(void)
{
    fill(FILE_BUFFER, 0, FILE_SIZE);
    clear_screen(0x17);
    print(" Windows Licensing Agreement");
    row = 3;
    print("   play-setup has no licence to show; it only stops where setup would.");
    row = 24;
    attribute = 0x70;
    print("  F8=I agree  ESC=I do not agree  PAGE DOWN=Next Page");
    stop();
}

/* Five groups of five letters and digits. */
static int key_form(const char *key)
{
    u32 n;
    for (n = 0; n < 29; n++) {
        char c = key[n];
        if (n % 6 == 5 ? c != '-' : !((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')))
            return 0;
    }
    return !key[29];
}

/* Says key and password on the serial port, which no setup would: what the lab keeps of that
   port has to be without them all the same. */
static void leak(void)
{
    char text[64];
    serial_begin();
    if (value("UserData", "ProductKey", text, sizeof text))
        say("text-mode", "note", text);
    if (value("GuiUnattended", "AdminPassword", text, sizeof text))
        say("text-mode", "note", text);
    fill(text, 0, sizeof text);
}

static void check_answers(void)
{
    char text[64];
    if (!is("Data", "UnattendedInstall", "Yes") || !is("Data", "MsDosInitiated", "0"))
        refuse("winnt.sif: [Data] is not for an unattended start from the CD");
    if (!is("Unattended", "UnattendMode", "FullUnattended"))
        refuse("winnt.sif: [Unattended] UnattendMode is not FullUnattended");
    if (!is("Unattended", "OemSkipEula", "Yes"))
        licence();
    if (!is("Unattended", "DriverSigningPolicy", "Ignore"))
        refuse("winnt.sif: [Unattended] DriverSigningPolicy is not Ignore");
    if (!is("GuiUnattended", "AutoLogon", "Yes"))
        refuse("winnt.sif: [GuiUnattended] AutoLogon is not Yes");
    if (!value("GuiUnattended", "AdminPassword", text, sizeof text) || !*text)
        refuse("winnt.sif: [GuiUnattended] has no AdminPassword");
    if (!value("UserData", "ComputerName", text, sizeof text) || !*text || length(text) > 15)
        refuse("winnt.sif: [UserData] ComputerName is not one of up to 15 characters");
    if (!value("UserData", "ProductKey", text, sizeof text) || !key_form(text))
        refuse("winnt.sif: [UserData] ProductKey has not the form of one");
    fill(text, 0, sizeof text);
}

static char *next_word(char **at, u32 room, char *to)
{
    u32 n = 0;
    while (blank(**at))
        (*at)++;
    while (!blank(**at) && !line_end(**at)) {
        if (n + 1 < room)
            to[n++] = **at;
        (*at)++;
    }
    to[n] = 0;
    return to;
}

static void next_line(char **at)
{
    while (!line_end(**at))
        (*at)++;
    while (**at && line_end(**at))
        (*at)++;
}

static void read_steps(void)
{
    char *at = (char *)FILE_BUFFER;
    char word[16];
    while (*at && disk.s.steps < MAX_STEPS) {
        struct step *step = &disk.s.step_list[disk.s.steps];
        next_word(&at, NAME, step->name);
        step->reboots = same(next_word(&at, sizeof word, word), "reboot");
        next_line(&at);
        if (step->name[0])
            disk.s.steps++;
    }
}

static void read_orders(void)
{
    char *at = (char *)FILE_BUFFER;
    char word[8];
    while (*at && disk.s.orders < MAX_ORDERS) {
        struct order *order = &orders.list[disk.s.orders];
        next_word(&at, NAME, order->step);
        next_word(&at, sizeof order->action, order->action);
        next_word(&at, sizeof word, word);
        order->times = word[0] ? word[0] - '0' : 1;
        next_line(&at);
        if (order->step[0])
            disk.s.orders++;
    }
}

/* The port that the scripts for the real one report on: "set PORT=COM1" in FIRST.CMD. */
static void read_port(void)
{
    char *at = (char *)FILE_BUFFER;
    for (; *at; next_line(&at))
        if (same_n(at, "set PORT=COM", 12))
            disk.s.port = at[12] == '1' ? 0x3F8 : 0x2F8;
}

/* -- failures on demand --------------------------------------------------------------------- */

static void __attribute__((noreturn)) blue_screen(void)
{
    clear_screen(0x1F);
    print("A problem has been detected and play-setup has been shut down.");
    row++;
    print("IRQL_NOT_LESS_OR_EQUAL");
    row++;
    print("Technical information:");
    row++;
    print("*** STOP: 0x0000000A (0x00000004,0x00000002,0x00000000,0x804D9B2A)");
    stop();
}

static int ordered(const char *step, const char *action)
{
    u32 n;
    for (n = 0; n < disk.s.orders; n++)
        if (same(orders.list[n].step, step) && same(orders.list[n].action, action))
            return 1;
    return 0;
}

static void obey(const char *step, u8 attempt)
{
    u32 n;
    for (n = 0; n < disk.s.orders; n++) {
        struct order *order = &orders.list[n];
        if (!same(order->step, step) || attempt > order->times)
            continue;
        if (same(order->action, "leak"))
            continue;
        if (same(order->action, "hang"))
            stop();
        if (same(order->action, "blue"))
            blue_screen();
        if (same(order->action, "restart"))
            reset();
        if (same(order->action, "noise")) {
            serial("\xff\xfe@pvlab 1 winrm o\r\n@pvlab 2 x ok\r\nSeaBIOS (version) ");
            continue;
        }
        if (same(order->action, "key")) {
            title();
            print("The product key is not valid. Please check and enter it again.");
            stop();
        }
        say(step, "fail", "exit status 1603");
        stop();
    }
}

/* -- the parts ------------------------------------------------------------------------------ */

static void text_mode(void)
{
    u32 n;
    title();
    print("Setup is inspecting your computer's hardware configuration...");
    if (!hard_disk_there()) {
        clear_screen(0x17);
        print("Setup did not find any hard disk drives installed in your computer.");
        print("  play-setup stops where setup would.");
        row = 24;
        attribute = 0x70;
        print("  F3=Quit");
        stop();
    }
    fill(disk.bytes, 0, 512);
    fill(orders.bytes, 0, 512);
    copy(disk.s.magic, magic, 8);
    disk.s.port = 0x2F8;
    if (cd_file("PLAY.TXT") >= 0)
        read_orders();
    if (floppy_file("WINNT   SIF") < 0)
        licence();
    check_answers();
    if (ordered("text-mode", "leak"))
        leak();
    n = is("Unattended", "OemPreinstall", "Yes");
    /* Nothing of key and password stays in memory. */
    fill(FILE_BUFFER, 0, FILE_SIZE);
    fill(SECTOR_BUFFER, 0, 2048);
    print("Setup is copying files...");
    if (n) {
        if (cd_file("$OEM$/CMDLINES.TXT") < 0)
            refuse("no \\$OEM$\\CMDLINES.TXT on the CD");
        if (cd_file("$OEM$/$1/PVLAB/SETUP/FIRST.CMD") < 0)
            refuse("no \\$OEM$\\$1\\PVLAB\\SETUP\\FIRST.CMD on the CD");
        read_port();
        if (cd_file("$OEM$/$1/PVLAB/SETUP/STEPS.TXT") < 0)
            refuse("no \\$OEM$\\$1\\PVLAB\\SETUP\\STEPS.TXT on the CD");
        read_steps();
    }
    obey("text-mode", 1);
    IMAGE[510] = 0x55, IMAGE[511] = 0xAA;
    if (!extended(0x43, HARD_DISK, 0, IMAGE_SECTORS, IMAGE))
        refuse("the hard disk cannot be written");
    disk.s.phase = GUI_MODE;
    save();
    print("The computer restarts.");
    pause_ticks(4);
    reset();
}

static void gui_mode(void)
{
    title();
    print("Installing devices, settings and components (a picture, in the real one)");
    disk.s.gui_attempts++;
    save();
    obey("gui-mode", disk.s.gui_attempts);
    say("gui-mode", "begin", "");
    say("gui-mode", "ok", "");
    disk.s.phase = FIRST_BOOT;
    save();
    say("gui-mode", "reboot", "");
    reset();
}

static void first_boot(void)
{
    title();
    print("The first boots: see the serial port.");
    while (disk.s.step < disk.s.steps) {
        struct step *step = &disk.s.step_list[disk.s.step];
        step->attempts++;
        save();
        print(step->name);
        say(step->name, "begin", "");
        obey(step->name, step->attempts);
        say(step->name, "ok", "");
        disk.s.step++;
        save();
        if (step->reboots) {
            say(step->name, "reboot", "");
            reset();
        }
    }
}

static void __attribute__((noreturn)) alive(void)
{
    char number[8];
    u32 n;
    print("All steps are done.");
    for (n = 0;; n++) {
        u32 left = n, i = 7;
        number[i] = 0;
        do
            number[--i] = '0' + left % 10, left /= 10;
        while (left && i);
        say("alive", "note", number + i);
        pause_ticks(9);
    }
}

void __attribute__((regparm(1), noreturn)) play(u32 drive)
{
    cd_drive = drive;
    if (drive != HARD_DISK)
        text_mode();
    if (!extended(0x42, HARD_DISK, STATE_SECTOR, 1, disk.bytes)
        || !extended(0x42, HARD_DISK, STATE_SECTOR + 1, 1, orders.bytes)
        || !same_n(disk.s.magic, magic, 8)) {
        clear_screen(0x4F);
        print("play-setup: the hard disk is damaged");
        stop();
    }
    serial_begin();
    disk.s.boots++;
    if (disk.s.phase == GUI_MODE)
        gui_mode();
    first_boot();
    alive();
}
