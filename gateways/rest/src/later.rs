//! Answers that come later. A handler that has to wait gives what it waits for back to the connection, so that whatever
//! a request needed (its head, the stack of the router, hyper's buffers) is gone while a reader is held.

use crate::problem::Problem;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use std::{pin::Pin, sync::Arc};

/// An answer on its way.
pub(crate) type Later = Pin<Box<dyn Future<Output = Response> + Send>>;

/// What stands in a response until its connection takes it: extensions have to be `Clone` and `Sync`.
#[derive(Clone)]
struct Slot(Arc<Mutex<Option<Later>>>);

/// A response that stands for one to come.
pub(crate) fn later(answer: impl Future<Output = Result<Response, Problem>> + Send + 'static) -> Response {
    let later: Later = Box::pin(async { answer.await.into_response() });
    let mut response = Response::default();
    response.extensions_mut().insert(Slot(Arc::new(Mutex::new(Some(later)))));
    response
}

/// What a response stands for, if it is not the answer itself.
pub(crate) fn taken(response: &Response) -> Option<Later> {
    response.extensions().get::<Slot>()?.0.lock().take()
}
