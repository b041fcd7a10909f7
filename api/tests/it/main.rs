//! The api as a whole: on real PostgreSQL and on SQLite, over real sockets.

mod backend;
mod events;
mod outages;
mod routes;
mod server;
mod settings;
mod store;
