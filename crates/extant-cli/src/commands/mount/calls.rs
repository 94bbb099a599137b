//! The system calls that a server in the sandbox never makes, and is refused.
//!
//! # Source
//! seccomp(2); the numbers of calls that are newer than the crate that names them, and of x32: kernel
//! `arch/x86/entry/syscalls/syscall_64.tbl`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::os::fd::RawFd;

use libc::*;
use rustix::io::Errno;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Refuses them to all threads, for good, but for entering rings with descriptors between two; whether the kernel does.
pub fn refuse(rings: Option<&RangeInclusive<RawFd>>) -> bool {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return false };
    let filters = [refused(rings), replaced()].map(|(rules, errno)| program(rules?, errno, arch));
    filters.into_iter().all(|filter| {
        filter.is_ok_and(|filter| seccompiler::apply_filter_all_threads(&filter).is_ok())
    })
}

type Rules = Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError>;

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: Errno,
    arch: TargetArch,
) -> Result<BpfProgram, BackendError> {
    let answer = SeccompAction::Errno(errno.raw_os_error().unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)?.try_into()
}

/// What a server of files never calls.
fn refused(rings: Option<&RangeInclusive<RawFd>>) -> (Rules, Errno) {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    rules.extend(REFUSED.iter().map(|number| (*number, Vec::new())));
    let conditions = || {
        let rule = |at, operator, value| {
            let word = SeccompCmpArgLen::Dword;
            SeccompRule::new(vec![SeccompCondition::new(at, word, operator, value)?])
        };
        let thread = u64::from(CLONE_THREAD.unsigned_abs());
        let own = u64::from(std::process::id());
        let exec = u64::from(PROT_EXEC.unsigned_abs());
        let to_others = || rule(0, SeccompCmpOp::Ne, own);
        let executable = || rule(2, SeccompCmpOp::MaskedEq(exec), exec);
        let to_ring = |operator, descriptor: RawFd| {
            rule(0, operator, u64::try_from(descriptor).unwrap_or(u64::MAX))
        };
        // No ring is made from now on, and none has another's descriptor.
        let beside_rings = match rings {
            Some(rings) => vec![
                to_ring(SeccompCmpOp::Lt, *rings.start())?,
                to_ring(SeccompCmpOp::Gt, *rings.end())?,
            ],
            None => Vec::new(),
        };
        Ok([
            // Threads are started, processes are not.
            (SYS_clone, vec![rule(0, SeccompCmpOp::MaskedEq(thread), 0)?]),
            (SYS_io_uring_enter, beside_rings),
            (SYS_kill, vec![to_others()?]),
            (SYS_tgkill, vec![to_others()?]),
            (SYS_mmap, vec![executable()?]),
            (SYS_mprotect, vec![executable()?]),
            (SYS_pkey_mprotect, vec![executable()?]),
        ])
    };
    let rules = conditions().map(|conditions| {
        rules.extend(conditions);
        rules.extend(other_abi(&rules));
        rules
    });
    (rules, Errno::PERM)
}

/// A filter cannot look into what `clone3` is told; the C library does with `clone` where there is none.
fn replaced() -> (Rules, Errno) {
    let rules = BTreeMap::from([(SYS_clone3, Vec::new())]);
    (Ok(rules), Errno::NOSYS)
}

/// Refused whatever they are told.
const REFUSED: &[i64] = &[
    // Other programs, and a look into processes.
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_kcmp,
    SYS_pidfd_open,
    SYS_pidfd_getfd,
    SYS_pidfd_send_signal,
    SYS_tkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_setpriority,
    SYS_migrate_pages,
    SYS_move_pages,
    SYS_userfaultfd,
    SYS_memfd_create,
    SYS_shmget,
    SYS_shmat,
    SYS_msgget,
    SYS_semget,
    SYS_mq_open,
    // The network.
    SYS_socket,
    SYS_socketpair,
    SYS_bind,
    SYS_connect,
    // Rings call the kernel past this filter; those of the mount, whose own filter lets commands to `/dev/fuse` pass, are entered.
    SYS_io_uring_setup,
    SYS_io_uring_register,
    // Mounts and namespaces.
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_move_mount,
    SYS_open_tree,
    OPEN_TREE_ATTR,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_unshare,
    SYS_setns,
    SYS_swapon,
    SYS_swapoff,
    SYS_quotactl,
    SYS_quotactl_fd,
    // The kernel, its keys and its clock.
    SYS_bpf,
    SYS_perf_event_open,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_kexec_load,
    #[cfg(not(target_arch = "riscv64"))]
    SYS_kexec_file_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_reboot,
    SYS_acct,
    SYS_syslog,
    SYS_personality,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_vhangup,
    SYS_fanotify_init,
    // Who it is.
    SYS_setuid,
    SYS_setgid,
    SYS_setreuid,
    SYS_setregid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_setfsuid,
    SYS_setfsgid,
    SYS_setgroups,
    SYS_capset,
    // Paths, of which landlock does not refuse all that is done to them, and what root may do to his own files.
    SYS_openat,
    SYS_openat2,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_chdir,
    SYS_fchdir,
    SYS_truncate,
    SYS_mkdirat,
    SYS_mknodat,
    SYS_linkat,
    SYS_symlinkat,
    SYS_unlinkat,
    SYS_renameat2,
    SYS_fchmod,
    SYS_fchmodat,
    FCHMODAT2,
    SYS_fchown,
    SYS_fchownat,
    SYS_utimensat,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_fsetxattr,
    SETXATTRAT,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_fremovexattr,
    REMOVEXATTRAT,
    FILE_SETATTR,
    #[cfg(not(target_arch = "riscv64"))]
    SYS_renameat,
    // What only old machines have.
    #[cfg(target_arch = "x86_64")]
    SYS_fork,
    #[cfg(target_arch = "x86_64")]
    SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    SYS_open,
    #[cfg(target_arch = "x86_64")]
    SYS_creat,
    #[cfg(target_arch = "x86_64")]
    SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    SYS_link,
    #[cfg(target_arch = "x86_64")]
    SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    SYS_rename,
    #[cfg(target_arch = "x86_64")]
    SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    SYS_chown,
    #[cfg(target_arch = "x86_64")]
    SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    SYS_utime,
    #[cfg(target_arch = "x86_64")]
    SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    SYS_futimesat,
];

// The same on every machine.
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;
const OPEN_TREE_ATTR: i64 = 467;
const FILE_SETATTR: i64 = 469;

/// The same calls by x32's numbers, and those that have numbers of their own there, whatever they do.
fn other_abi(rules: &BTreeMap<i64, Vec<SeccompRule>>) -> BTreeMap<i64, Vec<SeccompRule>> {
    if !cfg!(target_arch = "x86_64") {
        return BTreeMap::new();
    }
    let same = rules.iter().map(|(number, rules)| (number | X32, rules.clone()));
    let own = (512..=547).map(|number| (number | X32, Vec::new()));
    same.chain(own).chain([(SYS_clone3 | X32, Vec::new())]).collect()
}

const X32: i64 = 1 << 30;
