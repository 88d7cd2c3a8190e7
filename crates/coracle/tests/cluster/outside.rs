//! A server that is no pod's, for probes and hooks that name a host.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::scene::LIMIT;

/// Answers by HTTP what it was told to; it lives as long as this.
pub(crate) struct Outside {
    pub(crate) port: u16,
    answers: Answers,
    asked: watch::Receiver<Vec<String>>,
    _tasks: JoinSet<()>,
}

/// What is answered, by path; all else is not found.
type Answers = Arc<Mutex<HashMap<String, String>>>;

impl Outside {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (port, answers) = (listener.local_addr().unwrap().port(), Answers::default());
        let (told, asked) = watch::channel(Vec::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&answers), told));
        Self { port, answers, asked, _tasks: tasks }
    }

    /// From now on a path is answered so: a status line, headers, an empty line, a body.
    pub(crate) fn answers(&self, path: &str, answer: &str) {
        self.answers.lock().insert(path.to_owned(), answer.to_owned());
    }

    /// From now on a path is answered with this code.
    pub(crate) fn says(&self, path: &str, code: u16) {
        self.answers(path, &format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n"));
    }

    /// Waits until so many requests for a path have come, and gives the head of the last one in lower case.
    pub(crate) async fn asked(&self, path: &str, count: usize) -> String {
        let begin = format!("get {path} ");
        let mut asked = self.asked.clone();
        let of_path = |heads: &Vec<String>| heads.iter().filter(|head| head.starts_with(&begin)).count();
        let waiting = asked.wait_for(|heads| of_path(heads) >= count);
        let heads = tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap();
        heads.iter().rfind(|head| head.starts_with(&begin)).cloned().unwrap_or_default()
    }

    /// How often a path was asked for.
    pub(crate) fn count(&self, path: &str) -> usize {
        let begin = format!("get {path} ");
        self.asked.borrow().iter().filter(|head| head.starts_with(&begin)).count()
    }
}

async fn serve(listener: TcpListener, answers: Answers, told: watch::Sender<Vec<String>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = vec![0; 4096];
        let Ok(length) = stream.read(&mut head).await else { continue };
        let head = String::from_utf8_lossy(&head[..length]).to_lowercase();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let answer = answers.lock().get(path).cloned();
        told.send_modify(|heads| heads.push(head.clone()));
        let answer = answer.unwrap_or_else(|| "HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n".to_owned());
        // Who has gone away meanwhile is no matter of this server's.
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}
