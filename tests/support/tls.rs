//! A server with a certificate: `openssl s_server`, which answers when it is told to,
//! and an authority of the test's own that may have signed it.

use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{World, seconds, sh, wait_until};

pub struct TlsServer {
    pub port: u16,
    /// The certificate of the authority that signed the server's.
    pub authority: PathBuf,
    heard: PathBuf,
    server: Child,
}

impl TlsServer {
    /// A server whose certificate is for `name`, such as `IP:127.0.0.1`, and valid for so many days.
    pub fn start(world: &World, name: &str, days: &str) -> TlsServer {
        let folder = world.path("tls");
        fs::create_dir(&folder).unwrap();
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout"];
        let of = |command: &[&str], more: &[&str]| sh("openssl", &[command, more].concat());
        let (ca, ca_key) = (path("ca.pem"), path("ca.key"));
        of(
            &[&["req", "-x509"][..], &key].concat(),
            &[&ca_key, "-out", &ca, "-subj", "/CN=Test Authority", "-days", "30"],
        );
        let (request, server_key, certificate) = (path("request.pem"), path("server.key"), path("server.pem"));
        of(&[&["req"][..], &key].concat(), &[&server_key, "-out", &request, "-subj", "/CN=server"]);
        fs::write(folder.join("names"), format!("subjectAltName={name}\n")).unwrap();
        of(
            &["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"],
            &["-days", days, "-extfile", &path("names"), "-out", &certificate],
        );
        // Bound and let go: nobody else on this machine asks for a port in between.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let heard = folder.join("heard");
        let server = Command::new("openssl")
            .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}")])
            .args(["-cert", &certificate, "-key", &server_key])
            .stdin(Stdio::piped())
            .stdout(File::create(&heard).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("openssl s_server", seconds(10), || TcpStream::connect(("127.0.0.1", port)).is_ok());
        TlsServer { port, authority: ca.into(), heard, server }
    }

    /// Whoever comes next is answered 200; without this, nothing.
    pub fn answer(&mut self) {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        self.server.stdin.as_mut().unwrap().write_all(answer).unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.heard).unwrap()).into_owned()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
