//! What every measured program needs: text out, an exit status, instructions and stack of a call.
#![no_std]

pub mod engines;
#[rustfmt::skip]
pub mod expected;
pub mod journey;
pub mod scene;

use core::arch::asm;
use core::panic::PanicInfo;
use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{AtomicUsize, Ordering};

use cortex_m_rt::{ExceptionFrame, exception};
use cortex_m_semihosting::debug::{self, EXIT_FAILURE, EXIT_SUCCESS};
use cortex_m_semihosting::hio;

const SYST_CSR: *mut u32 = 0xE000_E010 as *mut u32;
const SYST_RVR: *mut u32 = 0xE000_E014 as *mut u32;
const SYST_CVR: *mut u32 = 0xE000_E018 as *mut u32;
const TICKS: u32 = 0x00FF_FFFF;
const PAINT: u32 = 0xA5A5_A5A5;
/// Bytes below a measuring function's frame that the painting functions may use: no call is said to need less.
pub const GAP: usize = 64;
/// The lowest address that was ever seen touched.
static LOWEST: AtomicUsize = AtomicUsize::new(usize::MAX);

unsafe extern "C" {
    static mut __ebss: u32;
    static _stack_start: u32;
}

/// What a call cost.
#[derive(Clone, Copy)]
pub struct Cost {
    /// Instructions, by SysTick under `-icount`.
    pub instructions: u32,
    /// Bytes of stack below the caller's frame; at least [`GAP`].
    pub stack: u32,
}

/// Prints text, without the formatting machinery: its flash would be measured, too.
pub fn print(text: &str) {
    if let Ok(mut out) = hio::hstderr() {
        let _ = out.write_all(text.as_bytes());
    }
}

/// Prints a number.
pub fn print_number(mut n: u32) {
    let mut digits = [b'0'; 10];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    print(core::str::from_utf8(&digits[at..]).unwrap_or("?"));
}

/// One line of the table that `scripts/firmware.sh` collects.
pub fn report(name: &str, cost: Cost) {
    print("cost ");
    print_number(cost.instructions);
    print(" ");
    print_number(cost.stack);
    print(" ");
    print(name);
    print("\n");
}

/// One line about the size of something in RAM.
pub fn report_size(name: &str, bytes: usize) {
    print("size ");
    print_number(bytes as u32);
    print(" - ");
    print(name);
    print("\n");
}

/// Every program begins with this: the stack is painted, so that its deepest use is known at the end.
#[inline(always)]
pub fn begin() {
    paint(stack_pointer());
}

/// Ends the program: everything was as it must be. Says how deep the stack went, from the top of RAM.
pub fn succeed() -> ! {
    remember();
    let top = &raw const _stack_start as usize;
    print("peak ");
    print_number((top - LOWEST.load(Ordering::Relaxed)) as u32);
    print(" - stack\n");
    debug::exit(EXIT_SUCCESS);
    loop {}
}

/// Ends the program: `what` was not as it must be.
pub fn fail(what: &str) -> ! {
    print("WRONG: ");
    print(what);
    print("\n");
    debug::exit(EXIT_FAILURE);
    loop {}
}

/// Ends the program unless both are the same.
pub fn expect(what: &str, is: &[u8], should: &[u8]) {
    if is != should {
        fail(what);
    }
}

/// How long an instruction takes in QEMU: what `scripts/firmware.sh` starts it with.
#[derive(Clone, Copy)]
pub enum Pace {
    /// `-icount shift=6`: 64 ns. Exact to an instruction or two, up to 10 million of them.
    Fine,
    /// `-icount shift=0`: 1 ns. To 40 instructions (M4) or 63 (M0), up to 600 million: for curves.
    Long,
}

/// Runs `call` and says what it cost.
#[inline(never)]
pub fn measure<R>(call: impl FnOnce() -> R) -> (R, Cost) {
    measure_at(Pace::Fine, call)
}

/// The same at a pace: that of the whole program.
#[inline(never)]
pub fn measure_at<R>(pace: Pace, call: impl FnOnce() -> R) -> (R, Cost) {
    let ((), idle) = once(pace, || ());
    let (result, cost) = once(pace, call);
    (result, Cost { instructions: cost.instructions.saturating_sub(idle.instructions), stack: cost.stack })
}

#[inline(never)]
fn once<R>(pace: Pace, call: impl FnOnce() -> R) -> (R, Cost) {
    let top = stack_pointer();
    remember();
    paint(top);
    // SAFETY: the SysTick registers of every Cortex-M; nothing else uses them here.
    let begin = unsafe {
        write_volatile(SYST_CSR, 0);
        write_volatile(SYST_RVR, TICKS);
        write_volatile(SYST_CVR, 0);
        write_volatile(SYST_CSR, 0b101);
        read_volatile(SYST_CVR)
    };
    let result = apart(call);
    // SAFETY: as above.
    let (end, wrapped) = unsafe { (read_volatile(SYST_CVR), read_volatile(SYST_CSR) & 1 << 16 != 0) };
    if wrapped {
        fail("SysTick wrapped: too many instructions to count");
    }
    let lowest = lowest_touched().min(top - GAP);
    // SysTick ticks every 40 ns on mps2-an386, every 62.5 ns on microbit.
    let ticks = begin.wrapping_sub(end) & TICKS;
    let instructions = match (pace, cfg!(microbit)) {
        (Pace::Fine, true) => ticks / 128 * 125 + ticks % 128 * 125 / 128,
        (Pace::Fine, false) => ticks / 8 * 5 + ticks % 8 * 5 / 8,
        (Pace::Long, true) => ticks * 62 + ticks / 2,
        (Pace::Long, false) => ticks * 40,
    };
    (result, Cost { instructions, stack: (top - lowest) as u32 })
}

/// A frame of its own for the call, below that of [`once`]: what is inlined into it counts.
#[inline(never)]
fn apart<R>(call: impl FnOnce() -> R) -> R {
    call()
}

/// Runs `rounds` times two instructions: what the counting is held to.
#[inline(never)]
pub fn spin(rounds: u32) {
    // SAFETY: counts a register down, and touches no memory.
    unsafe {
        asm!("2:", "subs {n}, #1", "bne 2b", n = inout(reg) rounds => _, options(nomem, nostack));
    }
}

#[inline(always)]
fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {sp}, sp", sp = out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// The end of static data: the stack may not come here.
fn floor() -> usize {
    (&raw const __ebss as usize + 4) & !3
}

/// Paints the free memory, from the end of static data to `GAP` below `sp`.
#[inline(never)]
fn paint(sp: usize) {
    let mut at = floor();
    while at < (sp - GAP) & !3 {
        // SAFETY: between the end of static data and the stack there is nothing.
        unsafe { write_volatile(at as *mut u32, PAINT) };
        at += 4;
    }
}

#[inline(never)]
fn lowest_touched() -> usize {
    let mut at = floor();
    let top = &raw const _stack_start as usize;
    // SAFETY: memory of ours; `paint` wrote it, or the stack did.
    while at < top && unsafe { read_volatile(at as *const u32) } == PAINT {
        at += 4;
    }
    if at == floor() {
        fail("the stack reached static data");
    }
    at
}

/// Notes the deepest use before the paint is renewed.
fn remember() {
    LOWEST.store(LOWEST.load(Ordering::Relaxed).min(lowest_touched()), Ordering::Relaxed);
}

#[exception]
unsafe fn HardFault(_: &ExceptionFrame) -> ! {
    fail("a fault: most likely the stack left RAM")
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    fail("a panic")
}
