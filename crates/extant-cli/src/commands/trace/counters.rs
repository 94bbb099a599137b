//! The counters that the kernel shows of a mount, by the names of its files and of the lines in them.

use extant::report::KernelCounters;

/// The names under `/sys/fs/ext4/DEVICE` as they are; those under `/proc/fs/ext4/DEVICE` behind the name of their file.
///
/// Source: kernel `fs/ext4/sysfs.c`, `ext4_seq_es_shrinker_info_show`, `ext4_seq_mb_stats_show`, `ext4_fc_info_show`.
pub fn named(counters: &KernelCounters) -> Vec<(&'static str, u64)> {
    let KernelCounters { es_stats, mb_stats, fc_info, .. } = counters;
    let mut named = vec![
        ("delayed_allocation_blocks", counters.delayed_allocation_blocks),
        ("session_write_kbytes", counters.session_write_kbytes),
        ("lifetime_write_kbytes", counters.lifetime_write_kbytes),
        ("reserved_clusters", counters.reserved_clusters),
        ("sra_exceeded_retry_limit", counters.sra_exceeded_retry_limit),
        ("es_shrinker_info/objects", es_stats.runs),
        ("es_shrinker_info/reclaimable objects", es_stats.reclaimable),
        ("es_shrinker_info/cache hits", es_stats.hits),
        ("es_shrinker_info/cache misses", es_stats.misses),
        ("mb_stats/reqs", mb_stats.requests),
    ];
    if let Some(fast) = fc_info {
        named.extend([
            ("fc_info/num_commits", fast.commits),
            ("fc_info/num_ineligible", fast.ineligible),
            ("fc_info/num_blks", fast.blocks),
        ]);
    }
    named
}
