/*
 * A multiboot kernel that answers one question about the processor QEMU gives it: can it
 * run Xen with 32-bit PAE HVM guests? The answer leaves through the isa-debug-exit device.
 *
 * Assembled into PROBE_KERNEL of probe.py with:
 *     as --32 probe.S -o probe.o && objcopy -O binary probe.o probe.bin
 *
 * Result byte: 0x10 always; 0x01 the page walk set the Accessed bit of a PAE
 * page-directory-pointer entry, which hardware leaves alone (Intel SDM vol. 3, 4.4.1: the bit
 * is reserved); 0x02 CPUID shows SVM and EFER.SVME can be set (AMD APM vol. 2, 15.4);
 * 0x04 CPUID shows VMX. A processor that shows SVM and refuses SVME resets instead.
 */
.code32
.globl _start
_start:
    /* Multiboot 0.6.96, section 3.1.1, with the address fields of flag 16. */
    .long 0x1BADB002, 0x00010000, -(0x1BADB002 + 0x00010000)
    .long 0x100000, 0x100000, 0, 0, 0x100020
entry:
    cli
    movl $0x300000, %esp
    /* Page directory pointers at 2 MiB, one page directory behind them: 4 MiB identity. */
    movl $0x200000, %edi
    xorl %eax, %eax
    movl $2048, %ecx
    cld
    rep stosl
    movl $0x201001, 0x200000
    movl $0x83, 0x201000
    movl $0x200083, 0x201008
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $0x200000, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    movl 0x100000, %eax
    movl 0x200000, %esi
    shrl $5, %esi
    andl $1, %esi
    movl $0x80000001, %eax
    cpuid
    shrl $2, %ecx
    andl $1, %ecx
    jz 1f
    orl $2, %esi
    movl $0xC0000080, %ecx
    rdmsr
    orl $0x1000, %eax
    wrmsr
1:
    movl $1, %eax
    cpuid
    shrl $5, %ecx
    andl $1, %ecx
    shll $2, %ecx
    orl %ecx, %esi
    orl $0x10, %esi
    movl %esi, %eax
    movw $0xf4, %dx
    outb %al, %dx
2:
    hlt
    jmp 2b
