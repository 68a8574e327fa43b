//! The one command of Fivefold.
