//! What the cloud writes into the operator's book: the epochs that it agreed, before anything else of them is durable. One
//! thread does it; what waits while it writes goes into its next transaction.

use std::sync::mpsc;

use fivefold_core::id::{Did, Epoch};
use fivefold_core::time::Millis;
use fivefold_keep::registry::{Registry, RegistryError};
use tokio::sync::oneshot;

/// Notes that one transaction takes.
const GROUP: usize = 256;

/// Why a note was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The book could not be written.
    #[error("the registry could not be written: {0}")]
    Registry(String),
    /// The thread is gone.
    #[error("the registry is closed")]
    Closed,
}

enum Job {
    Agreed { did: Did, epoch: Epoch, now: Millis, done: oneshot::Sender<Result<bool, NoteError>> },
    Version(oneshot::Sender<Result<u64, NoteError>>),
}

/// The way to the book. Dropping it waits until what was handed in is written.
#[derive(Debug)]
pub struct Notes {
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Notes {
    /// Over a book that is open for changes.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(book: Registry) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let writer = std::thread::Builder::new().name("registry writer".into()).spawn(move || run(book, &queue))?;
        Ok(Self { jobs: Some(jobs), writer: Some(writer) })
    }

    /// Notes that an epoch was agreed; durable when this returns. `false` when the book has a greater one.
    ///
    /// # Errors
    /// [`NoteError`]: then it must not be used.
    pub async fn agreed(&self, did: Did, epoch: Epoch, now: Millis) -> Result<bool, NoteError> {
        let (done, answer) = oneshot::channel();
        self.send(Job::Agreed { did, epoch, now, done });
        answer.await.unwrap_or(Err(NoteError::Closed))
    }

    /// The version of the book now.
    ///
    /// # Errors
    /// [`NoteError`].
    pub async fn version(&self) -> Result<u64, NoteError> {
        let (done, answer) = oneshot::channel();
        self.send(Job::Version(done));
        answer.await.unwrap_or(Err(NoteError::Closed))
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // If the writer is gone, what waits for the answer is told so.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn run(mut book: Registry, queue: &mpsc::Receiver<Job>) {
    let failed = |error: RegistryError| {
        tracing::error!(%error, "what was agreed could not be noted");
        NoteError::Registry(error.to_string())
    };
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(GROUP - 1));
        let mut agreed = Vec::new();
        let mut waiting = Vec::new();
        let mut latest = Millis(0);
        for job in group {
            match job {
                Job::Agreed { did, epoch, now, done } => {
                    agreed.push((did, epoch));
                    waiting.push(done);
                    latest = latest.max(now);
                }
                Job::Version(done) => drop(done.send(book.version().map_err(failed))),
            }
        }
        if agreed.is_empty() {
            continue;
        }
        match book.note_agreed(&agreed, latest.0 / 1000) {
            Ok(greater) => {
                for (done, greater) in waiting.into_iter().zip(greater) {
                    let _ = done.send(Ok(greater));
                }
            }
            Err(error) => {
                let said = failed(error).to_string();
                for done in waiting {
                    let _ = done.send(Err(NoteError::Registry(said.clone())));
                }
            }
        }
    }
}
