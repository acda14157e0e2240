//! The client side of our tickets: connections to a Flight server, and record batches with their offsets as Flight messages.
//!
//! The messages themselves are in [`proto`]; this crate only carries them. It is not a general Flight client: it reads and puts the two
//! tables of Candleflight.

pub mod client;
pub mod descriptor;
pub mod stream;

/// Largest HTTP/2 frame that either side accepts, in bytes: a batch then needs a few system calls, and not one for each 16 KiB.
pub const FRAME_BYTES_MAX: u32 = 1024 * 1024;
