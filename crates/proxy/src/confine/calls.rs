//! seccomp: which system calls can still be made.
//!
//! A list of what a server needs. Everything else does not exist (`ENOSYS`): that is an answer which the C library expects and
//! has another way for. No program can be started (`execve`), no process made (`clone` makes threads only), traced or
//! signalled; no file made executable, renamed or given away; no memory is both written and run.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Why not.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the filter cannot be made: {0}")]
    Filter(#[from] BackendError),
    #[error("{0}")]
    Install(#[from] seccompiler::Error),
}

/// Leaves the calls of the list; returns how many there are.
pub(super) fn confine() -> Result<usize, Error> {
    let rules = rules()?;
    let count = rules.len();
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, missing, SeccompAction::Allow, architecture)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(count)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules() -> Result<Rules, BackendError> {
    let lists = [FILES, MEMORY, THREADS, SOCKETS, WAITING, ITSELF, OLD];
    let mut rules: Rules = lists
        .into_iter()
        .flatten()
        .map(|call| (*call, Vec::new()))
        .collect();
    rules.insert(
        libc::SYS_mmap,
        without(2, libc::PROT_WRITE, libc::PROT_EXEC)?,
    );
    rules.insert(libc::SYS_mprotect, vec![none_of(2, libc::PROT_EXEC)?]);
    rules.insert(libc::SYS_clone, vec![all_of(0, libc::CLONE_THREAD)?]);
    let families = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    rules.insert(libc::SYS_socket, one_of(0, &families)?);
    rules.insert(
        libc::SYS_prctl,
        one_of(0, &[libc::PR_SET_NAME, PR_SET_VMA])?,
    );
    Ok(rules)
}

/// Names anonymous memory, for people who read `/proc/PID/maps`; newer C libraries do.
const PR_SET_VMA: i32 = 0x5356_4d41;

/// Open files. What may be opened is Landlock's affair.
const FILES: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_copy_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_unlinkat,
    libc::SYS_memfd_create,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
];

const MEMORY: &[i64] = &[
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_membarrier,
];

const THREADS: &[i64] = &[
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
];

/// No `listen`: the master has done that.
const SOCKETS: &[i64] = &[
    libc::SYS_socketpair,
    libc::SYS_accept4,
    libc::SYS_connect,
    // The C library binds a netlink socket to ask which addresses this machine has (getaddrinfo(3)).
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
];

const WAITING: &[i64] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
];

/// What a process may know of itself and of the machine.
const ITSELF: &[i64] = &[
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_prlimit64,
];

/// The same under names that only this architecture has.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_access,
    libc::SYS_unlink,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_accept,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_time,
    libc::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[libc::SYS_accept];

/// One of two flags may be there, not both.
fn without(argument: u8, one: i32, other: i32) -> Result<Vec<SeccompRule>, BackendError> {
    Ok(vec![none_of(argument, one)?, none_of(argument, other)?])
}

fn none_of(argument: u8, flags: i32) -> Result<SeccompRule, BackendError> {
    masked(argument, flags, 0)
}

fn all_of(argument: u8, flags: i32) -> Result<SeccompRule, BackendError> {
    masked(argument, flags, flags)
}

fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompRule, BackendError> {
    let operator = SeccompCmpOp::MaskedEq(bits(mask));
    condition(argument, operator, value)
}

fn one_of(argument: u8, values: &[i32]) -> Result<Vec<SeccompRule>, BackendError> {
    let rule = |value: &i32| condition(argument, SeccompCmpOp::Eq, *value);
    values.iter().map(rule).collect()
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: i32,
) -> Result<SeccompRule, BackendError> {
    // The flags and families of these calls are in the lower half; the kernel ignores the upper.
    let condition =
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, bits(value))?;
    SeccompRule::new(vec![condition])
}

fn bits(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_what_is_dangerous_is_not_in_it() {
        let rules = rules().unwrap();
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone3,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_kill,
            libc::SYS_setresuid,
            libc::SYS_listen,
            libc::SYS_renameat2,
            libc::SYS_mount,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_keyctl,
        ] {
            assert!(!rules.contains_key(&call), "{call}");
        }
        let architecture = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        let (no, yes) = (SeccompAction::Errno(1), SeccompAction::Allow);
        let filter = SeccompFilter::new(rules, no, yes, architecture).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        assert!(!program.is_empty());
    }
}
