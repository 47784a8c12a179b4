//! `make demo`: one node, one small actor app, and what becomes of them, told as it happens.
//!
//! Without arguments it tells the story: it starts the real binary and the app as processes of their own, uses them
//! with the requests it prints, kills the node, starts it again, and leaves both running, saying how to stop them;
//! `KEEP=0` stops them at the end. With `app` it *is* the app, which is all a user would have to write.

mod app;
mod story;

use std::env;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    match env::args().nth(1).as_deref() {
        None => runtime.block_on(story::tell()),
        Some("app") => runtime.block_on(app::serve()),
        Some(other) => anyhow::bail!("{other:?} is neither nothing nor `app`"),
    }
}
