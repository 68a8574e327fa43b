//! # E5: renewal of contexts
//!
//! Not built yet: contexts are installed at enrolment, and enrolling again gives new ones of a greater epoch. Where a rule
//! says renew, a device is answered 4.01 and put in quarantine. The card says what belongs in this room.
//!
//! | | |
//! |---|---|
//! | Key held by | one device and the cloud (identity keys of both), or one device and its gateway |
//! | Hides       | who the device is, from everybody on the way |
//! | Proves      | each to the other, with keys that later theft does not open |
//! | Binds       | the device's id and the epoch, which only grows |
//! | Drops as    | `E5-02` forged, `E5-03` stranger or revoked, `E5-06` epoch not greater |
//! | Does not    | carry readings; choose the algorithm of the contexts that it makes |
//! | Spec        | docs/protocol.md 11, 12 |
