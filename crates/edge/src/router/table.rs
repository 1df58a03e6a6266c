//! A route table that remembers what it holds, so that the router and the description of the API are one.
//!
//! Separate because axum's router cannot be asked for its routes. Whatever is added here is served and described.

use crate::app::App;
use crate::openapi::{Entry, Operation};
use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;

/// Routes and what they do.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    router: Router<App>,
    entries: Vec<Entry>,
}

impl Table {
    /// `GET path`.
    pub(super) fn get<H: Handler<T, App>, T: 'static>(
        self,
        path: &str,
        handler: H,
        operation: &'static Operation,
    ) -> Self {
        self.on((Method::GET, MethodFilter::GET), path, handler, operation)
    }

    /// `POST path`.
    pub(super) fn post<H: Handler<T, App>, T: 'static>(
        self,
        path: &str,
        handler: H,
        operation: &'static Operation,
    ) -> Self {
        self.on((Method::POST, MethodFilter::POST), path, handler, operation)
    }

    /// `PATCH path`.
    pub(super) fn patch<H: Handler<T, App>, T: 'static>(
        self,
        path: &str,
        handler: H,
        operation: &'static Operation,
    ) -> Self {
        self.on((Method::PATCH, MethodFilter::PATCH), path, handler, operation)
    }

    /// `DELETE path`.
    pub(super) fn delete<H: Handler<T, App>, T: 'static>(
        self,
        path: &str,
        handler: H,
        operation: &'static Operation,
    ) -> Self {
        self.on((Method::DELETE, MethodFilter::DELETE), path, handler, operation)
    }

    /// `POST` of `path` with an ending that belongs to its last segment, such as `{name}:remove`; one handler tells them apart,
    /// because axum matches whole segments.
    pub(super) fn actions<H: Handler<T, App>, T: 'static>(
        mut self,
        path: &str,
        handler: H,
        operations: &[(&str, &'static Operation)],
    ) -> Self {
        self.router = self.router.route(path, on(MethodFilter::POST, handler));
        let entry = |(ending, operation): &(&str, &'static Operation)| {
            Entry::new(Method::POST, &format!("{path}{ending}"), operation)
        };
        self.entries.extend(operations.iter().map(entry));
        self
    }

    /// Whatever else is asked of `path`.
    pub(super) fn otherwise<H: Handler<T, App>, T: 'static>(
        mut self,
        path: &str,
        handler: H,
    ) -> Self {
        self.router = self.router.route(path, MethodRouter::new().fallback(handler));
        self
    }

    fn on<H: Handler<T, App>, T: 'static>(
        mut self,
        (method, filter): (Method, MethodFilter),
        path: &str,
        handler: H,
        operation: &'static Operation,
    ) -> Self {
        self.router = self.router.route(path, on(filter, handler));
        self.entries.push(Entry::new(method, path, operation));
        self
    }

    /// With the routes of `other`.
    pub(super) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.entries.extend(other.entries);
        self
    }

    /// With the routes of `other` under a prefix.
    pub(super) fn nest(mut self, prefix: &str, other: Self) -> Self {
        self.router = self.router.nest(prefix, other.router);
        self.entries.extend(other.entries.into_iter().map(|entry| entry.under(prefix)));
        self
    }

    /// The router, and everything it serves.
    pub(super) fn split(self) -> (Router<App>, Vec<Entry>) {
        (self.router, self.entries)
    }
}
