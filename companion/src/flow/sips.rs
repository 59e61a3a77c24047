//! A socket that is read a sip at a time.
//!
//! In: leave for one read. Out: what that read brings; without leave nothing, and a note that more was wanted. The HTTP/2
//! library reads all there is before it hands over the first call, and keeps for good the room which that took: a burst
//! of ten thousand questions would cost its headers for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the file's head.
#[derive(Debug)]
pub(super) struct Sips<S> {
    socket: S,
    leave: Leave,
}

/// Leave to read, held by who looks after the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Leave(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_given: AtomicBool,
    was_missed: AtomicBool,
}

impl Leave {
    /// For one read that brings something.
    pub(super) fn give(&self) {
        self.0.is_given.store(true, Relaxed);
        self.0.was_missed.store(false, Relaxed);
    }

    /// Whether a read was wanted without leave. Then nobody wakes the reader: it has to be given leave and asked again.
    pub(super) fn was_missed(&self) -> bool {
        self.0.was_missed.load(Relaxed)
    }
}

impl<S> Sips<S> {
    /// The socket, and leave to read from it.
    pub(super) fn of(socket: S) -> (Self, Leave) {
        let leave = Leave::default();
        (Self { socket, leave: leave.clone() }, leave)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sips<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let state = self.leave.0.clone();
        if !state.is_given.load(Relaxed) {
            state.was_missed.store(true, Relaxed);
            return Poll::Pending;
        }
        let read = ready!(Pin::new(&mut self.socket).poll_read(context, buffer));
        state.is_given.store(false, Relaxed);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sips<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
