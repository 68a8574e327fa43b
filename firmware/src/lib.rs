//! What every measured program needs: text out, an exit status, instructions and stack of a call.
#![no_std]

pub mod expected;
pub mod scene;

use core::panic::PanicInfo;
use core::ptr::{read_volatile, write_volatile};

use cortex_m_semihosting::debug::{self, EXIT_FAILURE, EXIT_SUCCESS};
use cortex_m_semihosting::hio;

const SYST_CSR: *mut u32 = 0xE000_E010 as *mut u32;
const SYST_RVR: *mut u32 = 0xE000_E014 as *mut u32;
const SYST_CVR: *mut u32 = 0xE000_E018 as *mut u32;
const TICKS: u32 = 0x00FF_FFFF;
const PAINT: u32 = 0xA5A5_A5A5;
/// Bytes below the painting function's own frame that are left alone.
const GAP: usize = 64;
/// No call may need more stack than this, in bytes.
const DEEPEST: usize = 12 * 1024;

unsafe extern "C" {
    static mut __ebss: u32;
}

/// What a call cost.
#[derive(Clone, Copy)]
pub struct Cost {
    /// Instructions, by SysTick under `-icount shift=6`.
    pub instructions: u32,
    /// Bytes of stack.
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
    print(name);
    print(" ");
    print_number(cost.instructions);
    print(" ");
    print_number(cost.stack);
    print("\n");
}

/// One line about the size of something in RAM.
pub fn report_size(name: &str, bytes: usize) {
    print("size ");
    print(name);
    print(" ");
    print_number(bytes as u32);
    print("\n");
}

/// Ends the program: everything was as it must be.
pub fn succeed() -> ! {
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

/// Runs `call` and says what it cost.
#[inline(never)]
pub fn measure<R>(call: impl FnOnce() -> R) -> (R, Cost) {
    let (_, idle) = once(|| ());
    let (result, cost) = once(call);
    let instructions = cost.instructions.saturating_sub(idle.instructions);
    (result, Cost { instructions, stack: cost.stack.saturating_sub(idle.stack) })
}

#[inline(never)]
fn once<R>(call: impl FnOnce() -> R) -> (R, Cost) {
    let top = paint();
    // SAFETY: the SysTick registers of every Cortex-M; nothing else uses them here.
    let begin = unsafe {
        write_volatile(SYST_CSR, 0);
        write_volatile(SYST_RVR, TICKS);
        write_volatile(SYST_CVR, 0);
        write_volatile(SYST_CSR, 0b101);
        read_volatile(SYST_CVR)
    };
    let result = call();
    // SAFETY: as above.
    let (end, wrapped) = unsafe { (read_volatile(SYST_CVR), read_volatile(SYST_CSR) & 1 << 16 != 0) };
    if wrapped {
        fail("SysTick wrapped: too many instructions to count");
    }
    let lowest = lowest_touched(top);
    // Under `-icount shift=6` an instruction takes 64 ns; SysTick runs at 40 MHz on mps2-an386, at 62.5/64 of 1 GHz/64 on microbit.
    let ticks = begin.wrapping_sub(end) & TICKS;
    let instructions = if cfg!(microbit) { ticks * 125 / 128 } else { ticks * 5 / 8 };
    (result, Cost { instructions, stack: (top - lowest) as u32 })
}

fn stack_pointer() -> usize {
    cortex_m::register::msp::read() as usize
}

fn floor(top: usize) -> usize {
    let end_of_data = &raw const __ebss as usize;
    (top - DEEPEST).max(end_of_data + 4) & !3
}

/// Paints free memory below the stack and returns where the paint ends.
#[inline(never)]
fn paint() -> usize {
    let top = (stack_pointer() - GAP) & !3;
    let mut at = floor(top);
    while at < top {
        // SAFETY: between the end of static data and the stack there is nothing.
        unsafe { write_volatile(at as *mut u32, PAINT) };
        at += 4;
    }
    top
}

#[inline(never)]
fn lowest_touched(top: usize) -> usize {
    let mut at = floor(top);
    // SAFETY: the words that `paint` wrote.
    while at < top && unsafe { read_volatile(at as *const u32) } == PAINT {
        at += 4;
    }
    if at == floor(top) {
        fail("the stack reached the end of the paint");
    }
    at
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    fail("a panic")
}
