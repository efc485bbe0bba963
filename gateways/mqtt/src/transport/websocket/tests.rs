//! The stream over a pipe in memory; the other end writes and reads raw frames.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

fn pair(room: usize) -> (WebSocket<DuplexStream>, DuplexStream) {
    let (near, far) = duplex(room);
    (WebSocket::new(near, Vec::new()), far)
}

/// A client's frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

#[tokio::test]
async fn data_comes_through_and_what_came_with_the_request_comes_first() {
    let (near, mut far) = duplex(1_024);
    let mut early = frame(0x82, b"early ");
    let late = early.split_off(3);
    let mut socket = WebSocket::new(near, early);
    far.write_all(&late).await.unwrap();
    far.write_all(&frame(0x02, b"bi")).await.unwrap();
    far.write_all(&frame(0x80, b"rd")).await.unwrap();
    let mut heard = [0; 10];
    socket.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"early bird");
}

#[tokio::test]
async fn a_write_is_one_message_even_when_the_other_side_takes_it_byte_by_byte() {
    let (mut socket, mut far) = pair(1);
    let writing = tokio::spawn(async move {
        socket.write_all(&[7; 300]).await.unwrap();
        socket.write_all(b"x").await.unwrap();
        socket
    });
    let mut heard = vec![0; 4 + 300 + 3];
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard[..4], [0x82, 126, 1, 44]);
    assert!(heard[4..304].iter().all(|byte| *byte == 7));
    assert_eq!(heard[304..], [0x82, 1, b'x']);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_ping_is_answered_but_never_inside_a_frame() {
    let (mut socket, mut far) = pair(8);
    far.write_all(&frame(0x89, b"hi")).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut byte = [0];
        socket.read_exact(&mut byte).await.unwrap();
        // 2 + 20 bytes do not fit into the pipe: the frame is under way.
        let mut rest: &[u8] = &[5; 20];
        while !rest.is_empty() {
            let count = socket.write(rest).await.unwrap();
            rest = &rest[count..];
        }
        socket.flush().await.unwrap();
        socket
    });
    let mut pong = [0; 4];
    far.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [0x8A, 2, b'h', b'i']);
    far.write_all(&frame(0x82, b"x")).await.unwrap();
    let mut heard = [0; 22];
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard[..3], [0x82, 20, 5]);
    reading.await.unwrap();
}

#[tokio::test]
async fn of_many_unread_pings_the_newest_is_answered() {
    let (mut socket, mut far) = pair(64);
    for n in 0..5 {
        far.write_all(&frame(0x89, &[n; 20])).await.unwrap();
        let mut byte = [0];
        // Reads and finds no data.
        let mut reading = std::pin::pin!(socket.read(&mut byte));
        assert!(futures_poll(&mut reading).await.is_pending());
    }
    assert!(socket.controls.now.len() + socket.controls.next.len() <= 44);
}

async fn futures_poll<F: Future>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

#[tokio::test]
async fn a_goodbye_is_returned_and_ends_the_stream_behind_the_data_before_it() {
    let (mut socket, mut far) = pair(64);
    far.write_all(&[frame(0x82, b"bye"), frame(0x88, &[3, 233])].concat()).await.unwrap();
    let mut heard = Vec::new();
    socket.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"bye");
    socket.shutdown().await.unwrap();
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, [0x88, 2, 3, 233], "once, with the client's status");
}

#[tokio::test]
async fn a_text_frame_is_an_error_and_the_client_is_told_its_status() {
    let (mut socket, mut far) = pair(64);
    far.write_all(&frame(0x81, b"hello")).await.unwrap();
    let error = socket.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    socket.shutdown().await.unwrap();
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, [0x88, 2, 3, 235]);
}

#[tokio::test]
async fn our_own_end_says_goodbye_first() {
    let (mut socket, mut far) = pair(64);
    socket.write_all(b"x").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, [0x82, 1, b'x', 0x88, 2, 3, 232]);
    socket.write_all(b"more").await.unwrap_err();
}
