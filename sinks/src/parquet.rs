//! Parquet files by day: `day=2026-11-26/part-TIME-HASH.parquet`, a row for each value of a reading.
//!
//! The day is that of UTC on which the reading came to the cloud. A file is whole or not there: it is written beside under a
//! name that readers of such folders pass over, synced, renamed, and the folder is synced. Its name comes of what is in it, so
//! that the same batch once more is the same file, and another batch never takes the place of one that was written before.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use ::parquet::schema::parser::parse_message_type;
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_keep::files::{self, FileError, Readers};
use fivefold_keep::share::CloudOutbox;
use tokio::task::JoinHandle;

use crate::{Answer, Most, Outbound, Quantity, Scalar, Sending, Sink};

/// Bytes of a batch, as [`Outbound::weight`] counts them.
const BYTES: usize = 16 << 20;
/// Readings of a file where nothing else is said.
const READINGS: usize = 5_000;
/// How long a reading waits for others where nothing else is said.
const EVERY: Duration = Duration::from_secs(300);
/// The last millisecond that has a date of four digits.
const LAST: u64 = 253_402_300_799_999;

/// Checked words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) folder: PathBuf,
    readings: usize,
    pub(crate) every: Duration,
    /// Bytes that it leaves free on the folder's disk.
    pub(crate) keep_free: u64,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, readings, every, .. } = self;
        write!(f, "Parquet in {}, a file each {} s or {readings} readings", folder.display(), every.as_secs())
    }
}

impl Settings {
    pub(crate) fn check(at: &str, words: &CloudOutbox, folder: &Path) -> Result<Self, String> {
        let readings = words.readings.unwrap_or(READINGS);
        if !(1..=20_000).contains(&readings) {
            return Err(format!(
                "readings = {readings}: expected 1 to 20000, which are in memory until their file is written"
            ));
        }
        let every = words.every_s.map_or(EVERY, Duration::from_secs);
        if every > Duration::from_secs(86_400) {
            return Err(format!("every_s = {}: expected a day, 86400, at most", every.as_secs()));
        }
        Ok(Self { folder: folder.join(at), readings, every, keep_free: 0 })
    }

    pub(crate) fn prepare(&self) -> Parquet {
        Parquet { to: self.clone(), writing: None, is_swept: false }
    }
}

/// A folder of files. It must be there: what is not mounted is not written beside.
#[derive(Debug)]
pub(crate) struct Parquet {
    to: Settings,
    /// The file that is being written. Whoever lost patience finds it here, and two are never written at once.
    writing: Option<JoinHandle<Result<(), Unwritten>>>,
    /// What was left half written before was taken away.
    is_swept: bool,
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: {source}", path = path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Form(#[from] ParquetError),
    #[error(
        "{path}: its disk has {} MiB free, and {} are to stay free (limits.keep_free_mib): make room there", .free >> 20, .keep_free >> 20,
        path = path.display()
    )]
    Full { path: PathBuf, free: u64, keep_free: u64 },
}

impl Parquet {
    async fn deliver(&mut self, batch: &[Arc<Outbound>]) -> Answer {
        if let Some(before) = &mut self.writing {
            let _ = before.await;
        }
        let (to, batch) = (self.to.clone(), batch.to_vec());
        let is_first = !std::mem::replace(&mut self.is_swept, true);
        let work = move || {
            if is_first {
                sweep(&to.folder);
            }
            write(&to, &batch)
        };
        let written = self.writing.insert(tokio::task::spawn_blocking(work)).await;
        self.writing = None;
        match written {
            Ok(Ok(())) => Answer::Taken,
            Ok(Err(error)) => Answer::away(error),
            Err(error) => Answer::away(error),
        }
    }
}

impl Sink for Parquet {
    fn most(&self) -> Most {
        Most { readings: self.to.readings, bytes: BYTES }
    }

    fn gathers(&self) -> Duration {
        self.to.every
    }

    fn send<'s>(&'s mut self, batch: &'s [Arc<Outbound>]) -> Sending<'s> {
        Box::pin(self.deliver(batch))
    }
}

/// Takes away what a crash left between writing and renaming. What cannot be is in nobody's way but the disk's.
fn sweep(folder: &Path) {
    let in_folder = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let begins = |path: &Path, with: &str| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(with.as_bytes()))
    };
    let days = in_folder(folder).filter(|day| begins(day, "day="));
    for left in days.flat_map(|day| in_folder(&day)).filter(|file| begins(file, ".part-")) {
        let _ = std::fs::remove_file(left);
    }
}

/// One file for each day in the batch.
fn write(to: &Settings, batch: &[Arc<Outbound>]) -> Result<(), Unwritten> {
    let folder = &*to.folder;
    let mut days: BTreeMap<String, Vec<&Outbound>> = BTreeMap::new();
    for reading in batch {
        days.entry(day(reading.ingested)).or_default().push(reading);
    }
    let failed = |path: &Path, source| Unwritten::Folder { path: path.to_owned(), source };
    let sync = |path: &Path| std::fs::File::open(path).and_then(|f| f.sync_all()).map_err(|e| failed(path, e));
    for (day, readings) in days {
        let bytes = file(&readings)?;
        let free = files::free(folder).map_err(|e| failed(folder, e))?;
        if to.keep_free > 0 && free < to.keep_free.saturating_add(bytes.len() as u64) {
            return Err(Unwritten::Full { path: folder.to_owned(), free, keep_free: to.keep_free });
        }
        let of_day = folder.join(format!("day={day}"));
        match std::fs::create_dir(&of_day) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&of_day, e)),
            _ => sync(folder)?,
        }
        let name = name(&readings);
        // Readers of such folders pass over what begins with a dot.
        let hidden = of_day.join(format!(".{name}"));
        files::write(&hidden, Readers::Everybody, &bytes)?;
        std::fs::rename(&hidden, of_day.join(&name)).map_err(|e| failed(&hidden, e))?;
        sync(&of_day)?;
    }
    Ok(())
}

fn day(at: Millis) -> String {
    let at = jiff::Timestamp::from_millisecond(millis(at)).unwrap_or(jiff::Timestamp::MAX);
    at.strftime("%Y-%m-%d").to_string()
}

/// When the first of them came, and what they are.
fn name(readings: &[&Outbound]) -> String {
    let what: String = readings.iter().map(|r| format!("{} {}\n", r.id, r.proof.as_str())).collect();
    let hash = sha256(&[what.as_bytes()]).first_chunk::<8>().map(hex::encode).unwrap_or_default();
    format!("part-{:013}-{hash}.parquet", readings.first().map_or(0, |r| r.ingested.0))
}

/// A value with its reading; a reading without values is one row all the same.
#[derive(Clone, Copy)]
struct Row<'r> {
    reading: &'r Outbound,
    place: Option<(usize, &'r Quantity)>,
}

impl<'r> Row<'r> {
    fn value(&self) -> Option<&'r Scalar> {
        self.place?.1.value.as_ref()
    }
}

/// What a column takes from a row.
enum Take {
    Bool(fn(&Row<'_>) -> Option<bool>),
    Bytes(fn(&Row<'_>) -> Option<ByteArray>),
    Double(fn(&Row<'_>) -> Option<f64>),
    Int(fn(&Row<'_>) -> Option<i32>),
    Long(fn(&Row<'_>) -> Option<i64>),
}

use Take::{Bool, Bytes, Double, Int, Long};

/// Every column: what it is called and is, in the words of Parquet's schemas, and what stands in it. Columns are added at the end,
/// and none is taken away or changed: old files are read with new ones.
const COLUMNS: &[(&str, Take)] = &[
    ("required binary id (STRING)", Bytes(|r| text(&r.reading.id))),
    ("required binary about (STRING)", Bytes(|r| text(r.reading.about.as_str()))),
    ("required binary net (STRING)", Bytes(|r| text(&r.reading.net.to_string()))),
    ("required binary network (STRING)", Bytes(|r| text(&r.reading.network))),
    ("required binary device (STRING)", Bytes(|r| text(&r.reading.did.to_string()))),
    ("required binary sid (STRING)", Bytes(|r| text(&r.reading.sid.to_string()))),
    ("required binary proof (STRING)", Bytes(|r| text(r.reading.proof.as_str()))),
    ("required binary e1 (STRING)", Bytes(|r| text(r.reading.e1.as_str()))),
    ("required boolean insecure", Bool(|r| Some(r.reading.insecure))),
    ("required boolean conflict", Bool(|r| Some(r.reading.conflict))),
    ("required binary freshness (STRING)", Bytes(|r| text(r.reading.freshness))),
    ("required binary gateway (STRING)", Bytes(|r| text(&r.reading.gateway.to_string()))),
    ("optional int32 hops", Int(|r| r.reading.hops.map(i32::from))),
    ("optional int32 rssi", Int(|r| r.reading.rssi.map(i32::from))),
    ("optional int32 lqi", Int(|r| r.reading.lqi.map(i32::from))),
    ("required int32 epoch", Int(|r| Some(i32::from(r.reading.epoch.0)))),
    ("optional binary boot (STRING)", Bytes(|r| text(&r.reading.bctx?.to_string()))),
    ("required int64 number (INTEGER(64,false))", Long(|r| Some(r.reading.number.cast_signed()))),
    ("required int64 received (TIMESTAMP(MILLIS,true))", Long(|r| Some(millis(r.reading.received)))),
    ("required int64 ingested (TIMESTAMP(MILLIS,true))", Long(|r| Some(millis(r.reading.ingested)))),
    // Which value of its reading a row is.
    ("optional int32 place", Int(|r| i32::try_from(r.place?.0).ok())),
    ("optional binary name (STRING)", Bytes(|r| text(&r.place?.1.name))),
    ("optional binary unit (STRING)", Bytes(|r| text(r.place?.1.unit.as_ref()?))),
    // Every number, whole ones too.
    ("optional double value", Double(|r| number(r.value()?))),
    ("optional int64 whole", Long(|r| if let Scalar::Integer(n) = r.value()? { Some(*n) } else { None })),
    ("optional boolean bool", Bool(|r| if let Scalar::Bool(b) = r.value()? { Some(*b) } else { None })),
    ("optional binary text (STRING)", Bytes(|r| if let Scalar::Text(t) = r.value()? { text(t) } else { None })),
    ("optional binary bytes", Bytes(|r| if let Scalar::Bytes(b) = r.value()? { Some(b.clone().into()) } else { None })),
    ("optional double sum", Double(|r| r.place?.1.sum)),
    // Unix seconds, as the device claims.
    ("optional double time", Double(|r| Some(r.place?.1.time))),
    ("optional binary payload", Bytes(payload)),
];

#[expect(clippy::unnecessary_wraps, reason = "a column takes what may be missing")]
fn text(text: &str) -> Option<ByteArray> {
    Some(text.into())
}

fn number(value: &Scalar) -> Option<f64> {
    match value {
        Scalar::Float(n) => Some(*n),
        Scalar::Integer(n) => Some(*n as f64),
        Scalar::Bool(_) | Scalar::Bytes(_) | Scalar::Text(_) => None,
    }
}

/// In the first row of a reading.
fn payload(row: &Row<'_>) -> Option<ByteArray> {
    let is_first = row.place.is_none_or(|(place, _)| place == 0);
    is_first.then(|| row.reading.payload.clone().into())
}

/// A gateway may claim any time; what has no date is put at the last one.
fn millis(at: Millis) -> i64 {
    at.0.min(LAST).cast_signed()
}

/// The bytes of a file.
fn file(readings: &[&Outbound]) -> Result<Vec<u8>, ParquetError> {
    let rows_of = |reading| {
        let reading: &Outbound = reading;
        let values = reading.values.iter().enumerate().map(move |place| Row { reading, place: Some(place) });
        values.chain(reading.values.is_empty().then_some(Row { reading, place: None }))
    };
    let rows: Vec<Row<'_>> = readings.iter().copied().flat_map(rows_of).collect();
    let columns: String = COLUMNS.iter().map(|(words, _)| format!("{words};\n")).collect();
    let schema = parse_message_type(&format!("message reading {{\n{columns}}}"))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("fivefold ", env!("CARGO_PKG_VERSION")).into())
        .build();
    let mut out = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut out, Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for (words, take) in COLUMNS {
        let Some(mut column) = group.next_column()? else { break };
        let is_optional = words.starts_with("optional");
        match take {
            Bool(of) => put::<BoolType>(&mut column, is_optional, rows.iter().map(of))?,
            Bytes(of) => put::<ByteArrayType>(&mut column, is_optional, rows.iter().map(of))?,
            Double(of) => put::<DoubleType>(&mut column, is_optional, rows.iter().map(of))?,
            Int(of) => put::<Int32Type>(&mut column, is_optional, rows.iter().map(of))?,
            Long(of) => put::<Int64Type>(&mut column, is_optional, rows.iter().map(of))?,
        }
        column.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(out)
}

fn put<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    is_optional: bool,
    values: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let values: Vec<Option<T::T>> = values.collect();
    let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    column.typed::<T>().write_batch(&values, is_optional.then_some(&levels), None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use ::parquet::file::reader::{ChunkReader, FileReader as _, SerializedFileReader};
    use ::parquet::record::{Row as Read, RowAccessor as _};
    use fivefold_core::e4_channel::Origin;
    use proptest::prelude::*;

    use super::*;
    use crate::About;
    use crate::example::{reading, readings};

    fn at(folder: &Path) -> Parquet {
        Settings { folder: folder.to_owned(), readings: 100, every: Duration::ZERO, keep_free: 0 }.prepare()
    }

    fn rows(file: impl ChunkReader + 'static) -> Vec<Read> {
        SerializedFileReader::new(file).unwrap().get_row_iter(None).unwrap().map(Result::unwrap).collect()
    }

    fn rows_in(path: &Path) -> Vec<Read> {
        rows(std::fs::File::open(path).unwrap())
    }

    fn column(name: &str) -> usize {
        COLUMNS.iter().position(|(words, _)| words.split(' ').nth(2) == Some(name)).unwrap()
    }

    fn files_in(folder: &Path) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for day in std::fs::read_dir(folder).unwrap() {
            all.extend(std::fs::read_dir(day.unwrap().path()).unwrap().map(|f| f.unwrap().path()));
        }
        all.sort();
        all
    }

    #[test]
    fn a_day_is_that_of_utc_whatever_the_clock_said() {
        assert_eq!(day(Millis(1_795_737_599_999)), "2026-11-26");
        assert_eq!(day(Millis(1_795_737_600_000)), "2026-11-27");
        assert_eq!(day(Millis(0)), "1970-01-01");
        assert_eq!(day(Millis(u64::MAX)), "9999-12-30", "the last that there is");
    }

    #[tokio::test]
    async fn each_value_is_a_row_with_label_and_class_and_each_day_has_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = at(folder.path());
        let mut late = reading(2, 1);
        late.ingested = late.ingested.plus(86_400_000);
        late.values.clear();
        let batch = [Arc::new(reading(1, 1)), Arc::new(late), Arc::new(reading(1, 2))];
        assert_eq!(sink.send(&batch).await, Answer::Taken);
        let files = files_in(folder.path());
        let days: Vec<_> = files.iter().map(|f| f.parent().unwrap().file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(days, ["day=2026-09-21", "day=2026-09-22"]);
        let first = rows_in(&files[0]);
        assert_eq!(first.len(), 8);
        let row = &first[4];
        assert_eq!(row.get_string(column("id")).unwrap(), &batch[2].id);
        assert_eq!(row.get_string(column("proof")).unwrap(), "node");
        assert_eq!(row.get_string(column("e1")).unwrap(), "mac-ccm");
        assert_eq!(row.get_string(column("name")).unwrap(), "temperature");
        assert_eq!(row.get_double(column("value")).unwrap(), 21.5);
        assert!(row.get_string(column("text")).is_err());
        assert_eq!(row.get_bytes(column("payload")).unwrap().data(), [0x81, 0xa0]);
        assert!(first[5].get_bytes(column("payload")).is_err(), "once a reading");
        let second = rows_in(&files[1]);
        assert_eq!(second.len(), 1, "what has no values came all the same");
        assert!(second[0].get_string(column("name")).is_err());
    }

    #[tokio::test]
    async fn the_same_batch_is_the_same_file_and_no_other_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = at(folder.path());
        let batch = readings(2, 5);
        for _ in 0..2 {
            assert_eq!(sink.send(&batch).await, Answer::Taken);
            assert_eq!(files_in(folder.path()).len(), 1);
        }
        // A shorter one that begins as it does, as after a restore; and the label of its first reading.
        assert_eq!(sink.send(&batch[..1]).await, Answer::Taken);
        let signed = Outbound { about: About::Label, proof: Origin::Signed, ..(*batch[0]).clone() };
        assert_eq!(sink.send(&[Arc::new(signed)]).await, Answer::Taken);
        let files = files_in(folder.path());
        assert_eq!(files.iter().map(|f| rows_in(f).len()).sum::<usize>(), (10 + 1 + 1) * 4);
        assert!(files.iter().all(|f| f.file_name().unwrap().to_str().unwrap().starts_with("part-")), "nothing is left");
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_away_and_there_again_when_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let mounted = folder.path().join("mounted");
        let mut sink = at(&mounted);
        let batch = readings(1, 1);
        let Answer::Away { said, .. } = sink.send(&batch).await else { panic!() };
        assert!(said.contains("mounted"), "{said}");
        assert!(!mounted.exists(), "what is not mounted is not made");
        // A file where the day should be.
        std::fs::create_dir(&mounted).unwrap();
        std::fs::write(mounted.join("day=2026-09-21"), b"").unwrap();
        assert!(matches!(sink.send(&batch).await, Answer::Away { .. }));
        std::fs::remove_file(mounted.join("day=2026-09-21")).unwrap();
        assert_eq!(sink.send(&batch).await, Answer::Taken);
        assert_eq!(files_in(&mounted).len(), 1);
    }

    #[tokio::test]
    async fn what_must_stay_free_on_the_disk_stays_free() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = at(folder.path());
        let batch = readings(1, 1);
        sink.to.keep_free = u64::MAX;
        let Answer::Away { said, .. } = sink.send(&batch).await else { panic!() };
        assert!(said.contains("limits.keep_free_mib"), "{said}");
        assert!(files_in(folder.path()).is_empty());
        sink.to.keep_free = 1;
        assert_eq!(sink.send(&batch).await, Answer::Taken);
    }

    #[tokio::test]
    async fn what_a_crash_left_half_written_is_taken_away_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let day = folder.path().join("day=2026-09-20");
        std::fs::create_dir(&day).unwrap();
        let left = [".part-1-ab.parquet", ".part-1-ab.parquet.new"].map(|name| day.join(name));
        let stays = [day.join("part-1-ab.parquet"), day.join(".crc"), folder.path().join(".part-of-another")];
        left.iter().chain(&stays).for_each(|path| std::fs::write(path, b"x").unwrap());
        let mut sink = at(folder.path());
        assert_eq!(sink.send(&readings(1, 1)).await, Answer::Taken);
        assert!(left.iter().all(|path| !path.exists()) && stays.iter().all(|path| path.exists()));
    }

    #[tokio::test]
    async fn who_lost_patience_never_has_two_files_written_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = at(folder.path());
        let batch = readings(3, 50);
        drop(tokio::time::timeout(Duration::ZERO, sink.send(&batch)).await);
        assert!(sink.writing.is_some());
        assert_eq!(sink.send(&batch).await, Answer::Taken);
        assert_eq!(files_in(folder.path()).len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
        #[test]
        fn whatever_a_device_calls_its_values_they_are_read_as_they_were(
            name in ".{0,30}", text in ".{0,60}", number in any::<i64>(), time in any::<f64>(), at in any::<u64>(),
        ) {
            let mut odd = reading(1, 1);
            odd.received = Millis(at);
            let of = |name: &str, value| Quantity { name: name.into(), unit: Some(text.clone()), value: Some(value), sum: None, time };
            odd.values = vec![of(&name, Scalar::Integer(number)), of("", Scalar::Text(text.clone()))];
            let rows = rows(bytes::Bytes::from(file(&[&odd]).unwrap()));
            prop_assert_eq!(rows[0].get_string(column("name")).unwrap(), &name);
            prop_assert_eq!(rows[0].get_string(column("unit")).unwrap(), &text);
            prop_assert_eq!(rows[0].get_long(column("whole")).unwrap(), number);
            prop_assert_eq!(rows[1].get_string(column("text")).unwrap(), &text);
            prop_assert_eq!(rows[0].get_double(column("time")).unwrap().to_bits(), time.to_bits());
        }
    }
}
