//! The Fivefold cloud: exact ledger, readings with their proof, API.
