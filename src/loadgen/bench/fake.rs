//! A server for tests. A closure answers each request.

use net::resp::value::{Value, decode};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The reaction to a request.
pub(crate) enum Answer {
    Reply(Vec<u8>),
    /// Close the connection.
    Close,
    /// Send nothing.
    Silence,
}

impl Answer {
    pub(crate) fn ok() -> Answer {
        Answer::Reply(b"+OK\r\n".to_vec())
    }

    pub(crate) fn text(reply: &str) -> Answer {
        Answer::Reply(reply.as_bytes().to_vec())
    }
}

pub(crate) struct FakeServer {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl FakeServer {
    /// Starts a server. `answer` gets the words of each request, and the number of requests before it.
    pub(crate) fn start(answer: impl Fn(&[String], usize) -> Answer + Send + Sync + 'static) -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let (answer, counter) = (Arc::new(answer), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, counter) = (Arc::clone(&answer), Arc::clone(&counter));
                thread::spawn(move || serve(stream.unwrap(), &*answer, &counter));
            }
        });
        FakeServer { address, requests }
    }

    /// Returns the number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, answer: &(impl Fn(&[String], usize) -> Answer + ?Sized), counter: &AtomicUsize) {
    stream.set_nodelay(true).unwrap();
    let mut input = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let count = match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        input.extend_from_slice(&chunk[..count]);
        let mut output = Vec::new();
        while let Some((request, length)) = decode(&input).unwrap() {
            input.drain(..length);
            match answer(&words(&request), counter.fetch_add(1, Ordering::SeqCst)) {
                Answer::Reply(bytes) => output.extend_from_slice(&bytes),
                Answer::Silence => {}
                Answer::Close => {
                    _ = stream.write_all(&output);
                    return;
                }
            }
        }
        if stream.write_all(&output).is_err() {
            return;
        }
    }
}

fn words(request: &Value) -> Vec<String> {
    let word = |value: &Value| String::from_utf8(value.as_bytes().unwrap().to_vec()).unwrap();
    request.as_items().unwrap().iter().map(word).collect()
}
