//! One render for all scrapes that wait at the same time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
};

use tokio::{
    sync::Mutex,
    task::{JoinError, spawn_blocking},
};

use super::{Coding, Format, Page};

/// Renders one page at a time, off the async workers. Scrapes that come meanwhile wait for the next render and share it: a
/// scrape never gets a page whose rendering had begun before it asked.
#[derive(Debug, Default)]
pub(crate) struct SharedPages {
    /// Renders that have begun.
    begun: AtomicU64,
    /// Scrapes that wait for their turn.
    waiting: AtomicUsize,
    /// The pages that somebody who waits may take. Whoever renders holds it.
    rendered: Arc<Mutex<Vec<Rendered>>>,
}

#[derive(Debug)]
struct Rendered {
    kind: (Format, Coding),
    /// Which render it was, from 1.
    number: u64,
    page: Page,
}

impl SharedPages {
    /// Lets go of a page that somebody was to take who is gone.
    pub(crate) fn let_go(&self) {
        if let Ok(mut rendered) = self.rendered.try_lock()
            && self.is_last()
        {
            rendered.clear();
        }
    }

    /// The page of this kind, which `render` renders if nobody else does.
    ///
    /// # Errors
    /// If `render` panics.
    pub(crate) async fn page(
        &self,
        kind: (Format, Coding),
        render: impl FnOnce() -> Page + Send + 'static,
    ) -> Result<Page, JoinError> {
        let begun_before = self.begun.load(SeqCst);
        let mut rendered = {
            let _waiting = Waiting::new(&self.waiting);
            Arc::clone(&self.rendered).lock_owned().await
        };
        let is_fit = |page: &&Rendered| page.kind == kind && page.number > begun_before;
        if let Some(page) = rendered.iter().find(is_fit).map(|rendered| rendered.page.clone()) {
            if self.is_last() {
                rendered.clear();
            }
            return Ok(page);
        }
        let number = self.begun.fetch_add(1, SeqCst) + 1;
        // A kept page is written to in place only while nobody else holds it.
        rendered.retain(|page| page.kind != kind);
        // The turn goes with the work: should this scrape be given up, the next one waits for the end of it all the same.
        let work = spawn_blocking(move || (render(), rendered));
        let (page, mut rendered) = work.await?;
        if self.is_last() {
            rendered.clear();
        } else {
            rendered.push(Rendered { kind, number, page: page.clone() });
        }
        Ok(page)
    }

    fn is_last(&self) -> bool {
        self.waiting.load(SeqCst) == 0
    }
}

/// Counts a scrape for as long as it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use shardmeter_process::testing::eventually;

    use super::*;

    const KIND: (Format, Coding) = (Format::TEXT, Coding::Identity);

    /// A page that says which render it is.
    fn page(renders: &AtomicU64) -> Page {
        let number = renders.fetch_add(1, SeqCst) + 1;
        Page { coding: KIND.1, segments: vec![number.to_string().into()] }
    }

    #[tokio::test]
    async fn who_waits_shares_the_next_render() {
        let pages = Arc::new(SharedPages::default());
        let renders = Arc::new(AtomicU64::new(0));
        let (go, gate) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let (pages, renders) = (Arc::clone(&pages), Arc::clone(&renders));
            async move {
                let render = move || {
                    gate.recv().unwrap();
                    page(&renders)
                };
                pages.page(KIND, render).await.unwrap().to_vec()
            }
        });
        eventually("a render begins", || pages.begun.load(SeqCst) == 1).await;
        let others: Vec<_> = (0..10)
            .map(|n| {
                let (pages, renders) = (Arc::clone(&pages), Arc::clone(&renders));
                let kind = if n == 9 { (Format::OPENMETRICS, KIND.1) } else { KIND };
                tokio::spawn(async move {
                    pages.page(kind, move || page(&renders)).await.unwrap().to_vec()
                })
            })
            .collect();
        eventually("all wait", || pages.waiting.load(SeqCst) == 10).await;
        // One that is given up holds up nobody.
        others[3].abort();
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap(), b"1");
        for (n, other) in (0..).zip(others) {
            match (n, other.await) {
                (3, page) => assert!(page.is_err()),
                // Not the first, which had begun before they asked.
                (9, page) => assert_eq!(page.unwrap(), b"3"),
                (_, page) => assert_eq!(page.unwrap(), b"2"),
            }
        }
        assert!(pages.rendered.lock().await.is_empty(), "nobody waits, so nothing is held");
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_let_go() {
        let pages = SharedPages::default();
        let page = Page { coding: KIND.1, segments: Vec::new() };
        pages.rendered.lock().await.push(Rendered { kind: KIND, number: 1, page });
        let waiting = Waiting::new(&pages.waiting);
        pages.let_go();
        assert_eq!(pages.rendered.lock().await.len(), 1, "somebody waits for it");
        drop(waiting);
        pages.let_go();
        assert!(pages.rendered.lock().await.is_empty());
    }

    #[tokio::test]
    async fn a_scrape_that_is_given_up_is_rendered_to_its_end() {
        let pages = Arc::new(SharedPages::default());
        let renders = Arc::new(AtomicU64::new(0));
        let (go, gate) = mpsc::channel::<()>();
        let given_up = tokio::spawn({
            let pages = Arc::clone(&pages);
            async move {
                let render = move || {
                    gate.recv().unwrap();
                    Page { coding: KIND.1, segments: Vec::new() }
                };
                pages.page(KIND, render).await
            }
        });
        eventually("a render begins", || pages.begun.load(SeqCst) == 1).await;
        given_up.abort();
        assert!(given_up.await.is_err());
        let next = tokio::spawn({
            let (pages, renders) = (Arc::clone(&pages), Arc::clone(&renders));
            async move { pages.page(KIND, move || page(&renders)).await.unwrap() }
        });
        eventually("the other waits", || pages.waiting.load(SeqCst) == 1).await;
        assert_eq!(renders.load(SeqCst), 0, "it waits its turn");
        go.send(()).unwrap();
        assert_eq!(next.await.unwrap().to_vec(), b"1");
    }
}
