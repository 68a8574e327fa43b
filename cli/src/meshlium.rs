//! A Meshlium's database (W14), read from a dump or live: nothing in it is executed, and nothing in it is believed.

mod book;
mod compare;
mod dump;
#[cfg(test)]
mod dump_tests;
mod enter;
mod event;
mod examine;
mod file;
mod import;
mod lexer;
mod live;
mod rows;

pub(crate) use compare::Compare;
pub(crate) use examine::examine;
pub(crate) use import::Import;
