//! scratch
use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

async fn ask(stream: &mut TcpStream, request: &[u8]) {
    stream.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut buf = [0; 8192];
        let n = stream.read(&mut buf).await.unwrap();
        bytes.extend_from_slice(&buf[..n]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .split("content-length: ")
                .nth(1)
                .map(|l| l.lines().next().unwrap().parse::<usize>().unwrap());
            if length.map_or_else(|| text.ends_with("0\r\n\r\n"), |l| body.len() >= l) {
                assert!(head.starts_with("HTTP/1.1 200"), "{text}");
                return;
            }
        }
    }
}

async fn median(stream: &mut TcpStream, request: &[u8]) -> u128 {
    let mut times = Vec::new();
    for n in 0..3300 {
        let began = std::time::Instant::now();
        ask(stream, request).await;
        if n >= 300 {
            times.push(began.elapsed().as_micros());
        }
    }
    times.sort_unstable();
    times[1500]
}

fn raw(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn speed() {
    let plain = edge(&[]).await;
    let screened = edge(&[("EDGE__GUARD__POLICY", "default")]).await;
    for (name, edge) in [("plain", &plain), ("screened", &screened)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (router, limits, tasks) = (edge.router.clone(), edge.config.limits, edge.tasks.clone());
        edge.tasks
            .spawn(async move { crate::server::serve(router, listener, &limits, &tasks).await });
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let info = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", inference("/info"));
        println!("{name} info {} us", median(&mut stream, info.as_bytes()).await);
        println!(
            "{name} chat {} us",
            median(&mut stream, &raw(&inference("/chat/completions"), &says("hello"))).await
        );
        println!(
            "{name} stream {} us",
            median(&mut stream, &raw(&inference("/chat/completions"), &streams("hello"))).await
        );
    }
}
