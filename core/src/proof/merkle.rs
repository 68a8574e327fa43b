//! Merkle trees of RFC 9162 2.1 over SHA-256: root, inclusion and consistency, made and verified without a heap.

use core::fmt;

use crate::suite::sha256;

/// Hashes in a proof, at most: one for each bit of a tree's size, and one more for consistency.
pub const LONGEST_PROOF: usize = 65;

/// A hash of a leaf, a node or a whole tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Of a leaf: SHA-256(00 ‖ data), data in parts.
    pub fn of_leaf<const N: usize>(data: [&[u8]; N]) -> Self {
        let mut parts: [&[u8]; 8] = [&[]; 8];
        const { assert!(N < 8) };
        let (first, rest) = parts.split_at_mut(1);
        first.fill(&[0]);
        rest.iter_mut().zip(data).for_each(|(p, d)| *p = d);
        Self(sha256(&parts))
    }

    /// Of an inner node: SHA-256(01 ‖ left ‖ right).
    pub fn of_node(left: &Self, right: &Self) -> Self {
        Self(sha256(&[&[1], &left.0, &right.0]))
    }

    /// Of the tree without leaves: SHA-256 of nothing.
    pub fn of_nothing() -> Self {
        Self(sha256(&[]))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// A tree that grows leaf by leaf, and remembers only the roots of its full subtrees: 2 KiB for any number of leaves.
#[derive(Clone)]
pub struct Tree {
    // One root for each bit set in `size`, the largest subtree first.
    roots: [Hash; 64],
    size: u64,
}

impl Tree {
    /// Without leaves.
    pub const fn new() -> Self {
        Self { roots: [Hash([0; 32]); 64], size: 0 }
    }

    /// As it was at `size` leaves, of the roots of its full subtrees, the largest first. `None` when these are not as many
    /// as the size has bits set.
    pub fn of_roots(size: u64, full: &[Hash]) -> Option<Self> {
        let mut tree = Self { size, ..Self::new() };
        if full.len() != size.count_ones() as usize {
            return None;
        }
        tree.roots.iter_mut().zip(full).for_each(|(root, full)| *root = *full);
        Some(tree)
    }

    /// Leaves so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// One more leaf, by its hash ([`Hash::of_leaf`]).
    pub fn append(&mut self, leaf: Hash) {
        let mut top = self.size.count_ones() as usize;
        let mut hash = leaf;
        // Each trailing one of the size is a full subtree of the size that has just become full again.
        for _ in 0..self.size.trailing_ones() {
            top = top.saturating_sub(1);
            if let Some(left) = self.roots.get(top) {
                hash = Hash::of_node(left, &hash);
            }
        }
        if let Some(slot) = self.roots.get_mut(top) {
            *slot = hash;
        }
        self.size = self.size.saturating_add(1);
    }

    /// The root over all leaves so far.
    pub fn root(&self) -> Hash {
        let roots = self.roots.get(..self.size.count_ones() as usize).unwrap_or_default();
        roots.iter().rev().copied().reduce(|right, left| Hash::of_node(&left, &right)).unwrap_or_else(Hash::of_nothing)
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({} leaves)", self.size)
    }
}

impl Extend<Hash> for Tree {
    fn extend<I: IntoIterator<Item = Hash>>(&mut self, leaves: I) {
        leaves.into_iter().for_each(|leaf| self.append(leaf));
    }
}

/// The root over these leaf hashes.
pub fn root(leaves: &[Hash]) -> Hash {
    let mut tree = Tree::new();
    tree.extend(leaves.iter().copied());
    tree.root()
}

/// A proof that does not prove what it should; with what was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotProven {
    /// What was wrong.
    pub reason: &'static str,
}

impl fmt::Display for NotProven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl core::error::Error for NotProven {}

const WRONG_LENGTH: NotProven = NotProven { reason: "the proof has a wrong length for this tree" };
const WRONG_ROOT: NotProven = NotProven { reason: "the proof leads to another root" };

/// A proof under construction or as it came: hashes, leaf side first.
#[derive(Clone, Copy)]
pub struct Proof {
    hashes: [Hash; LONGEST_PROOF],
    len: usize,
}

impl Proof {
    const fn new() -> Self {
        Self { hashes: [Hash([0; 32]); LONGEST_PROOF], len: 0 }
    }

    /// The hashes, in RFC order.
    pub fn as_slice(&self) -> &[Hash] {
        self.hashes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, hash: Hash) {
        if let Some(slot) = self.hashes.get_mut(self.len) {
            *slot = hash;
            self.len += 1;
        }
    }

    fn reversed(mut self) -> Self {
        if let Some(hashes) = self.hashes.get_mut(..self.len) {
            hashes.reverse();
        }
        self
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// The largest power of two below `n`, which is at least 2.
const fn split(n: usize) -> usize {
    1 << (usize::BITS - 1 - (n - 1).leading_zeros())
}

/// PATH(index, leaves) of RFC 9162 2.1.3.1. `None` when there is no such leaf.
pub fn prove_inclusion(leaves: &[Hash], index: usize) -> Option<Proof> {
    if index >= leaves.len() {
        return None;
    }
    let mut proof = Proof::new();
    let (mut part, mut index) = (leaves, index);
    while part.len() > 1 {
        let (left, right) = part.split_at_checked(split(part.len()))?;
        if index < left.len() {
            proof.push(root(right));
            part = left;
        } else {
            proof.push(root(left));
            index -= left.len();
            part = right;
        }
    }
    Some(proof.reversed())
}

/// PROOF(size, leaves) of RFC 9162 2.1.4.1, that the first `size` leaves have not changed. `None` for `size` 0 or more
/// than there are leaves; empty for all of them.
pub fn prove_consistency(leaves: &[Hash], size: usize) -> Option<Proof> {
    if size == 0 || size > leaves.len() {
        return None;
    }
    let mut proof = Proof::new();
    let (mut part, mut size, mut is_whole) = (leaves, size, true);
    while size < part.len() {
        let (left, right) = part.split_at_checked(split(part.len()))?;
        if size <= left.len() {
            proof.push(root(right));
            part = left;
        } else {
            proof.push(root(left));
            size -= left.len();
            part = right;
            is_whole = false;
        }
    }
    if !is_whole {
        proof.push(root(part));
    }
    Some(proof.reversed())
}

/// Checks that `leaf` is number `index` of the `size` leaves under `root` (RFC 9162 2.1.3.2).
///
/// # Errors
/// [`NotProven`] when it does not follow from `proof`.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), NotProven> {
    if index >= size {
        return Err(NotProven { reason: "the tree has no such leaf" });
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for other in proof {
        if last == 0 {
            return Err(WRONG_LENGTH);
        }
        if node & 1 == 1 || node == last {
            hash = Hash::of_node(other, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = Hash::of_node(&hash, other);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(WRONG_LENGTH);
    }
    if hash == *root { Ok(()) } else { Err(WRONG_ROOT) }
}

/// Checks that the tree of `size` leaves under `root` is the beginning of the one of `later_size` leaves under
/// `later_root` (RFC 9162 2.1.4.2).
///
/// # Errors
/// [`NotProven`] when it does not follow from `proof`; always for `size` 0, of which there are no proofs.
pub fn verify_consistency(
    size: u64,
    root: &Hash,
    later_size: u64,
    later_root: &Hash,
    proof: &[Hash],
) -> Result<(), NotProven> {
    if size == 0 || size > later_size {
        return Err(NotProven { reason: "there are no proofs between trees of these sizes" });
    }
    if size == later_size {
        return match (proof, root == later_root) {
            ([], true) => Ok(()),
            ([], false) => Err(WRONG_ROOT),
            _ => Err(WRONG_LENGTH),
        };
    }
    let (mut node, mut last) = (size - 1, later_size - 1);
    let shift = node.trailing_ones();
    (node, last) = (node >> shift, last >> shift);
    // A complete first tree is its own starting point.
    let (start, rest) = if size.is_power_of_two() {
        (*root, proof)
    } else {
        let (first, rest) = proof.split_first().ok_or(WRONG_LENGTH)?;
        (*first, rest)
    };
    let (mut old, mut new) = (start, start);
    for other in rest {
        if last == 0 {
            return Err(WRONG_LENGTH);
        }
        if node & 1 == 1 || node == last {
            old = Hash::of_node(other, &old);
            new = Hash::of_node(other, &new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new = Hash::of_node(&new, other);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(WRONG_LENGTH);
    }
    if old == *root && new == *later_root { Ok(()) } else { Err(WRONG_ROOT) }
}
