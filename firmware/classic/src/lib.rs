//! The hardened profile for sketches of Waspmote nodes: `include/fivefold_classic.h` as a static library.
//!
//! The protocol is `fivefold-waspmote` and `fivefold-core`, the same code that opens at gateway and cloud; `node` and
//! `storage` are the node's side of it, without `unsafe` and tested on any computer. This file alone turns C into Rust.
#![cfg_attr(not(test), no_std)]

mod node;
mod oaep;
mod storage;

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::slice;

use fivefold_waspmote::hardened::{Epoch, Peer, Wish};
use fivefold_waspmote::key_message::Cut;

use node::{Fault, Node, Renewal};
use storage::{Broken, KR1, Storage};

type Read = extern "C" fn(*mut c_void, u16, *mut u8, u16) -> u8;
type Write = extern "C" fn(*mut c_void, u16, *const u8, u16) -> u8;
type Public = extern "C" fn(*mut c_void, *mut u8) -> u8;

/// `ff_storage`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FfStorage {
    context: *mut c_void,
    read: Option<Read>,
    write: Option<Write>,
}

impl Storage for FfStorage {
    fn read(&mut self, offset: u16, bytes: &mut [u8]) -> Result<(), Broken> {
        let (read, length) = (self.read.ok_or(Broken)?, u16::try_from(bytes.len()).map_err(|_| Broken)?);
        if read(self.context, offset, bytes.as_mut_ptr(), length) == 0 { Ok(()) } else { Err(Broken) }
    }

    fn write(&mut self, offset: u16, bytes: &[u8]) -> Result<(), Broken> {
        let (write, length) = (self.write.ok_or(Broken)?, u16::try_from(bytes.len()).map_err(|_| Broken)?);
        if write(self.context, offset, bytes.as_ptr(), length) == 0 { Ok(()) } else { Err(Broken) }
    }
}

/// `ff_node`: room for a node, filled by `ff_boot`.
#[repr(C)]
pub struct FfNode {
    storage: FfStorage,
    node: MaybeUninit<Node>,
    booted: u8,
}

/// `ff_answer`.
#[repr(C)]
pub struct FfAnswer {
    wish: u8,
    time: u32,
}

/// `ff_renewal`.
#[repr(C)]
pub struct FfRenewal {
    server: [u8; 4],
    enrolment_key: *const u8,
    random: *const u8,
    context: *mut c_void,
    public: Option<Public>,
}

/// Bytes that the C header sets aside for `ff_node`; on AVR a build fails that needs more.
pub const FF_NODE_BYTES: usize = 96;
#[cfg(target_arch = "avr")]
const _: () = assert!(core::mem::size_of::<FfNode>() <= FF_NODE_BYTES);

/// Bytes of EEPROM that the C header promises to stay within.
pub const FF_STORAGE_BYTES: u16 = 460;
const _: () = assert!(storage::BYTES == FF_STORAGE_BYTES);

const OK: u8 = 0;

fn code(result: Result<(), Fault>) -> u8 {
    result.map_or_else(|fault| fault as u8, |()| OK)
}

/// The node and its storage, if `ff_boot` filled it.
///
/// # Safety
/// `node` is null, or points to an `ff_node` that nobody else uses meanwhile, zeroed or filled by `ff_boot`.
unsafe fn booted<'n>(node: *mut FfNode) -> Result<(&'n mut Node, &'n mut FfStorage), Fault> {
    // SAFETY: as this function asks for; `booted` is set only when `node` was written.
    unsafe {
        let room = node.as_mut().ok_or(Fault::Argument)?;
        if room.booted != 1 {
            return Err(Fault::NoKey);
        }
        Ok((room.node.assume_init_mut(), &mut room.storage))
    }
}

/// # Safety
/// `bytes` is null, or points to `length` bytes that stay as they are meanwhile.
unsafe fn bytes<'b>(bytes: *const u8, length: u16) -> Result<&'b [u8], Fault> {
    if bytes.is_null() {
        return Err(Fault::Argument);
    }
    // SAFETY: as this function asks for.
    Ok(unsafe { slice::from_raw_parts(bytes, usize::from(length)) })
}

/// # Safety
/// `bytes` is null, or points to `length` bytes that nobody else uses meanwhile.
unsafe fn room<'b>(bytes: *mut u8, length: u16) -> Result<&'b mut [u8], Fault> {
    if bytes.is_null() {
        return Err(Fault::Argument);
    }
    // SAFETY: as this function asks for.
    Ok(unsafe { slice::from_raw_parts_mut(bytes, usize::from(length)) })
}

/// As the header says.
///
/// # Safety
/// Pointers are null, or point to what the header says, which nobody else uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff_boot(node: *mut FfNode, storage: *const FfStorage, peer: u8, serial: *const u8) -> u8 {
    // SAFETY: as this function asks for.
    let boot = || unsafe {
        let place = node.as_mut().ok_or(Fault::Argument)?;
        place.booted = 0;
        place.storage = *storage.as_ref().ok_or(Fault::Argument)?;
        let peer = match peer {
            2 => Peer::Gateway,
            3 => Peer::Cloud,
            _ => return Err(Fault::Argument),
        };
        let serial = bytes(serial, 8)?.try_into().map_err(|_| Fault::Argument)?;
        place.node.write(Node::boot(&mut place.storage, peer, serial)?);
        place.booted = 1;
        Ok(())
    };
    code(boot())
}

/// As the header says.
///
/// # Safety
/// As for [`ff_boot`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff_install(node: *mut FfNode, epoch: u32, key: *const u8) -> u8 {
    // SAFETY: as this function asks for.
    let install = || unsafe {
        let (node, storage) = booted(node)?;
        node.install(storage, Epoch(epoch), bytes(key, 32)?.try_into().map_err(|_| Fault::Argument)?)
    };
    code(install())
}

/// As the header says.
///
/// # Safety
/// As for [`ff_boot`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff_epoch(node: *mut FfNode) -> u32 {
    // SAFETY: as this function asks for.
    unsafe { booted(node) }.map_or(0, |(node, _)| node.epoch().0)
}

/// As the header says.
///
/// # Safety
/// As for [`ff_boot`]; `frame` and `out` do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff_seal(
    node: *mut FfNode,
    seed: *const u8,
    frame: *const u8,
    length: u16,
    out: *mut u8,
    room_bytes: u16,
    sealed: *mut u16,
) -> u8 {
    // SAFETY: as this function asks for.
    let seal = || unsafe {
        let sealed = sealed.as_mut().ok_or(Fault::Argument)?;
        *sealed = 0;
        let (node, storage) = booted(node)?;
        let seed = bytes(seed, 4)?.try_into().map_err(|_| Fault::Argument)?;
        let len = node.seal(storage, seed, bytes(frame, length)?, room(out, room_bytes)?)?;
        *sealed = u16::try_from(len).map_err(|_| Fault::Room)?;
        Ok(())
    };
    code(seal())
}

/// As the header says.
///
/// # Safety
/// As for [`ff_boot`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff_open_answer(node: *mut FfNode, frame: *const u8, length: u16, answer: *mut FfAnswer) -> u8 {
    // SAFETY: as this function asks for.
    let open = || unsafe {
        let place = answer.as_mut().ok_or(Fault::Argument)?;
        let (node, _) = booted(node)?;
        let answer = node.open_answer(bytes(frame, length)?)?;
        let wish = match answer.wish {
            Wish::None => 0,
            Wish::Renew => 1,
        };
        *place = FfAnswer { wish, time: answer.time };
        Ok(())
    };
    code(open())
}

/// As the header says.
///
/// # Safety
/// As for [`ff_boot`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff_offer(node: *mut FfNode, renewal: *const FfRenewal, kr1: *mut u8) -> u8 {
    // SAFETY: as this function asks for; the number that `public` gets has 256 bytes.
    let offer = || unsafe {
        let (node, storage) = booted(node)?;
        let how = renewal.as_ref().ok_or(Fault::Argument)?;
        let public = how.public.ok_or(Fault::Argument)?;
        let renewal = Renewal {
            server: how.server,
            enrolment_key: bytes(how.enrolment_key, 32)?.try_into().map_err(|_| Fault::Argument)?,
            random: bytes(how.random, 80)?.try_into().map_err(|_| Fault::Argument)?,
        };
        let kr1 = room(kr1, KR1 as u16)?.try_into().map_err(|_| Fault::Argument)?;
        let public = |number: &mut [u8; oaep::K]| {
            if public(how.context, number.as_mut_ptr()) == 0 { Ok(()) } else { Err(Fault::Rsa) }
        };
        node.offer(storage, &renewal, public, kr1)
    };
    code(offer())
}

/// As the header says.
///
/// # Safety
/// As for [`ff_boot`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff_take_answer(node: *mut FfNode, frame: *const u8, length: u16) -> u8 {
    // SAFETY: as this function asks for.
    let take = || unsafe {
        let (node, storage) = booted(node)?;
        node.take_answer(storage, bytes(frame, length)?)
    };
    code(take())
}

/// As the header says.
///
/// # Safety
/// As for [`ff_boot`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff_part(
    serial: *const u8,
    id: u8,
    index: u8,
    message: *const u8,
    length: u16,
    out: *mut u8,
    room_bytes: u16,
    written: *mut u16,
) -> u8 {
    // SAFETY: as this function asks for.
    let part = || unsafe {
        let written = written.as_mut().ok_or(Fault::Argument)?;
        *written = 0;
        let serial = bytes(serial, 8)?.try_into().map_err(|_| Fault::Argument)?;
        let cut = Cut::new(serial, id, bytes(message, length)?, usize::from(room_bytes)).map_err(|_| Fault::Room)?;
        let Some(part) = cut.part(index) else { return Ok(()) };
        let len = part.emit(room(out, room_bytes)?).map_err(|_| Fault::Room)?;
        *written = u16::try_from(len).map_err(|_| Fault::Room)?;
        Ok(())
    };
    code(part())
}

#[cfg(all(target_arch = "avr", not(test)))]
mod bare {
    //! What a bare processor lacks. Nothing of this library allocates: an allocator that has nothing shows it.

    use core::alloc::{GlobalAlloc, Layout};
    use core::panic::PanicInfo;

    struct Nothing;

    // SAFETY: it hands out no memory.
    unsafe impl GlobalAlloc for Nothing {
        unsafe fn alloc(&self, _: Layout) -> *mut u8 {
            core::ptr::null_mut()
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
    }

    #[global_allocator]
    static NOTHING: Nothing = Nothing;

    unsafe extern "C" {
        fn abort() -> !;
    }

    /// A node that cannot go on stops; its watchdog starts it again.
    #[panic_handler]
    fn panic(_: &PanicInfo<'_>) -> ! {
        // SAFETY: avr-libc's; it takes nothing and does not return.
        unsafe { abort() }
    }
}
