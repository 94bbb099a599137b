//! Requests to the kernel that safe Rust has no call for: a process of `perl` makes them on a descriptor that it inherits.
//!
//! The numbers are those of x86-64; elsewhere the requests are not supported.

use std::fs::File;
use std::io;
use std::process::{Command, Stdio};

use crate::Errno;

/// What can be asked for, with its arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// Store a byte at an offset through a shared mapping.
    Store(u64),
    /// `FS_IOC_FIEMAP`.
    Fiemap,
    /// `FS_IOC_SETFLAGS`: `EXT4_JOURNAL_DATA_FL` on or off.
    JournalData(bool),
    /// `EXT4_IOC_CLEAR_ES_CACHE`.
    ForgetStatus,
    /// `EXT4_IOC_SHUTDOWN`.
    Shutdown(u32),
    /// `sync_file_range`: offset, length, flags.
    SyncRange(u64, u64, u32),
}

impl Request {
    /// Its name in [`PROGRAM`], and the program's other arguments.
    fn arguments(self) -> Vec<String> {
        let (name, numbers) = match self {
            Self::Store(offset) => ("store", vec![offset]),
            Self::Fiemap => ("fiemap", vec![]),
            Self::JournalData(on) => ("flags", vec![0x4000, if on { 0x4000 } else { 0 }]),
            Self::ForgetStatus => ("forget", vec![]),
            Self::Shutdown(how) => ("shutdown", vec![how.into()]),
            Self::SyncRange(offset, len, flags) => ("range", vec![offset, len, flags.into()]),
        };
        [name.to_owned()].into_iter().chain(numbers.iter().map(u64::to_string)).collect()
    }
}

/// Makes a request on an open file; what the program printed.
pub(crate) fn make(file: &File, request: Request) -> io::Result<String> {
    let not_supported = || io::Error::from_raw_os_error(Errno::NOT_SUPPORTED.0);
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return Err(not_supported());
    }
    let mut perl = Command::new("perl");
    perl.args(["-e", PROGRAM]).args(request.arguments()).stdin(file.try_clone()?);
    let output = perl.stderr(Stdio::inherit()).output().map_err(|_| not_supported())?;
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other("perl was killed")),
    }
}

/// Its exit status is the errno.
const PROGRAM: &str = r#"
my ($what, @n) = @ARGV;
@n = map { $_ + 0 } @n;
sub done { exit($_[0] ? 0 : $! + 0) }
if ($what eq "store") {
    my $page = $n[0] - $n[0] % 4096;
    my $at = syscall(9, 0, 4096, 3, 1, 0, $page);
    done(0) if $at == -1;
    pipe(my $from, my $to) or done(0);
    syswrite($to, "Z");
    done(syscall(0, fileno($from), $at + $n[0] - $page, 1) == 1);
} elsif ($what eq "fiemap") {
    my $buffer = pack("QQLLLL", 0, ~0, 0, 0, 512, 0) . "\0" x (56 * 512);
    done(0) unless ioctl(STDIN, 0xC020660B, $buffer);
    my (undef, undef, undef, $count) = unpack("QQLL", $buffer);
    for my $i (0 .. $count - 1) {
        my ($from, $at, $len, undef, undef, $flags) = unpack("Q5L", substr($buffer, 32 + 56 * $i, 56));
        my $state = $flags & 4 ? "delayed" : $flags & 0x200 ? "inline" : $flags & 0x800 ? "unwritten" : "written";
        print $flags & 6 ? "[$from+$len $state] " : "[$from+$len at $at $state] ";
    }
} elsif ($what eq "flags") {
    my $flags = pack("Q", 0);
    done(0) unless ioctl(STDIN, 0x80086601, $flags);
    $flags = pack("Q", unpack("Q", $flags) & ~$n[0] | $n[1]);
    done(ioctl(STDIN, 0x40086602, $flags));
} elsif ($what eq "forget") {
    done(ioctl(STDIN, 0x6628, 0));
} elsif ($what eq "shutdown") {
    my $how = pack("L", $n[0]);
    done(ioctl(STDIN, 0x8004587D, $how));
} else {
    done(syscall(277, 0, @n) == 0);
}
"#;
