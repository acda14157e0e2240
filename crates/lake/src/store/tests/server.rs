//! A small HTTP server that sends the answers of a test, and a proxy.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A client's request.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// The `Authorization` header.
    pub(super) authorization: Option<String>,
}

/// Status line, further header lines, body.
pub(super) type Answer = (&'static str, String, String);

/// Serves on loopback until the process ends. Returns the address.
pub(super) fn serve(answer: impl Fn(Request) -> Answer + Send + Sync + 'static) -> String {
    let answer = Arc::new(answer);
    accept(move |connection| {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        while let Some((request, length)) = read_head(&mut reader) {
            std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()).unwrap();
            let is_head = request.method == "HEAD";
            let (status, headers, body) = answer(request);
            let length = body.len();
            let body = if is_head { String::new() } else { body };
            let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
            if (&connection).write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// Forwards connections to the server at `address`. Returns the proxy's address and its count of connections.
pub(super) fn proxy(address: &str) -> (String, Arc<AtomicUsize>) {
    let (address, count) = (address.to_owned(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    let proxy = accept(move |client| {
        counted.fetch_add(1, Ordering::SeqCst);
        let server = TcpStream::connect(&address).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let back = std::thread::spawn(move || {
            // Either side may close its connection first.
            let _copied = std::io::copy(&mut &server, &mut &client);
            let _closed = client.shutdown(Shutdown::Both);
        });
        let _copied = std::io::copy(&mut from, &mut to);
        let _closed = to.shutdown(Shutdown::Both);
        back.join().unwrap();
    });
    (proxy, count)
}

/// Serves TLS with a certificate that no client trusts. Returns the address.
pub(super) fn untrusted() -> String {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config =
        config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    let config = Arc::new(config);
    let address = accept(move |connection| {
        let mut session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        // The client closes the connection.
        let _refused = session.complete_io(&mut &connection);
    });
    address.replace("http://", "https://")
}

/// Accepts requests and never answers. Returns the address.
pub(super) fn silent() -> String {
    accept(|mut connection| {
        // This reads until the client closes the connection.
        let _read = std::io::copy(&mut connection, &mut std::io::sink());
    })
}

fn accept(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(connection.unwrap()));
        }
    });
    address
}

/// Reads the lines of a request. Returns it with the length of its body, or nothing if the client has closed the connection.
fn read_head(reader: &mut impl BufRead) -> Option<(Request, u64)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => authorization = Some(value.trim().to_owned()),
            _ => (),
        }
    }
    Some((Request { method, path, authorization }, length))
}
