//! The client side of our tickets: connections to a Flight server, and record batches with their offsets as Flight messages.
//!
//! The messages themselves are in [`proto`]; this crate only carries them. It is not a general Flight client: it reads and puts the two
//! tables of Candleflight.

pub mod client;
pub mod descriptor;
pub mod stream;

/// Maximum size of an HTTP/2 frame that client and server accept, in bytes. At the default of 16 KiB, a batch needs many more system calls.
pub const FRAME_BYTES_MAX: u32 = 1024 * 1024;
