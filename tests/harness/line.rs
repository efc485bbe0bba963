//! A line that fails when a test wants it to.

use super::Broker;
use std::{
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// TCP to a broker far away, by an address that stays while the broker moves and the line is cut and mended.
pub(crate) struct Line {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    /// `None`: whoever comes is cut off at once.
    far: Option<SocketAddr>,
    /// Both ends of all connections.
    open: Vec<TcpStream>,
    calls: usize,
}

impl Line {
    pub(crate) fn to(far: &impl Broker) -> Self {
        let line = Self::cut_off();
        line.lead_to(far);
        line
    }

    /// It leads nowhere yet.
    pub(crate) fn cut_off() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { far: None, open: Vec::new(), calls: 0 }));
        let weak = Arc::downgrade(&state);
        thread::spawn(move || {
            for near in listener.incoming() {
                let (Some(state), Ok(near)) = (weak.upgrade(), near) else { return };
                state.lock().unwrap().accept(near);
            }
        });
        Self { address, state }
    }

    /// It is whole, and leads there.
    pub(crate) fn lead_to(&self, far: &impl Broker) {
        self.state.lock().unwrap().far = Some(far.mqtt());
    }

    /// Everything that is open breaks, and nobody gets through.
    pub(crate) fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.far = None;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How often somebody connected, whether he got through or not.
    pub(crate) fn calls(&self) -> usize {
        self.state.lock().unwrap().calls
    }
}

impl State {
    fn accept(&mut self, near: TcpStream) {
        self.calls += 1;
        let Some(far) = self.far.and_then(|far| TcpStream::connect(far).ok()) else { return };
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
            self.open.push(stream.try_clone().unwrap());
        }
        carry(near.try_clone().unwrap(), far.try_clone().unwrap());
        carry(far, near);
    }
}

impl Broker for Line {
    fn mqtt(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.cut();
    }
}

/// One direction, until either end closes.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
