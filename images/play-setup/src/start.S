/*
 * The first sector of play-setup: what a PC BIOS starts, from the CD or from the hard disk.
 *
 * From the CD the BIOS has loaded the whole program (El Torito 1.0, no emulation); of a hard
 * disk it loads this sector alone, which then loads the others.
 */
.code16
.section .start, "ax"
.globl _start
_start:
    ljmp $0, $1f
1:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $0x7C00, %esp
    cld
    sti
    movb %dl, drive
    cmpb $0x80, %dl
    jne 2f
    /* EDD 3.0, int 13h AH=42h: extended read. */
    movw $packet, %si
    movb $0x42, %ah
    int $0x13
    jc 3f
2:
    movzbl drive, %eax
    calll play
3:
    int $0x18
4:
    hlt
    jmp 4b

drive:
    .byte 0
    .balign 4
packet:
    .byte 16, 0
    .word 63, 0x7E00, 0
    .quad 1

    .org 510
    .word 0xAA55

/* void bios10(struct registers *), bios13 likewise: a BIOS call with these registers, which
   are replaced by what it returns; carry becomes 0 or 1. BIOSes keep no register for sure. */
.macro bios number
.globl bios\number
bios\number:
    pushal
    movl %eax, registers
    movl %eax, %ebp
    movl 4(%ebp), %ebx
    movl 8(%ebp), %ecx
    movl 12(%ebp), %edx
    movl 16(%ebp), %esi
    movl 0(%ebp), %eax
    int $0x\number
    pushl %ebp
    movl registers, %ebp
    movl %eax, 0(%ebp)
    movl %ebx, 4(%ebp)
    movl %ecx, 8(%ebp)
    movl %edx, 12(%ebp)
    movl $0, 20(%ebp)
    jnc 1f
    movl $1, 20(%ebp)
1:
    popl %ebp
    popal
    retl
.endm

    bios 10
    bios 13

    .balign 4
registers:
    .long 0
