//! Every key of both stores, on one page.
