//! The Fivefold gateway: radios on one side, the cloud on the other, and no key of E3 between.
