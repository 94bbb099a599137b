//! The matrix: words of the command line, and what may differ, with the reason.

/// One set of options.
#[derive(Clone, Copy)]
pub struct Row {
    pub fs_type: &'static str,
    pub words: &'static [&'static str],
    pub extended: &'static str,
    pub size: &'static str,
    /// A configuration instead of the stock one.
    pub config: &'static str,
    /// Fields that may differ.
    pub differs: &'static [&'static str],
    /// What the engine names when it does not write it.
    pub read_only: &'static str,
    pub kernel: Kernel,
}

/// What the kernel does with it.
#[derive(Clone, Copy)]
pub enum Kernel {
    Mounts,
    /// It lacks something, or is built without it.
    Refuses(&'static str),
}

const fn row(fs_type: &'static str, words: &'static [&'static str], size: &'static str) -> Row {
    Row {
        fs_type,
        words,
        extended: "",
        size,
        config: "",
        differs: &[],
        read_only: "",
        kernel: Kernel::Mounts,
    }
}

const fn with(fs_type: &'static str, extended: &'static str, size: &'static str) -> Row {
    Row { extended, ..row(fs_type, &[], size) }
}

/// For [`Row::read_only`]: it is not to be written.
pub const NOT_ASKED: &str = "not asked";
const NO_QUOTA: Kernel = Kernel::Refuses("built without quota");
const LARGE_BLOCKS: Kernel = Kernel::Refuses("blocks larger than a page, before Linux 6.19");

pub const ROWS: &[Row] = &[
    // Types and sizes.
    row("ext2", &[], "8M"),
    row("ext2", &["-b", "4096"], "64M"),
    row("ext2", &[], "600M"),
    row("ext3", &[], "16M"),
    row("ext3", &["-b", "4096"], "64M"),
    row("ext3", &[], "600M"),
    row("ext4", &[], "2M"),
    row("ext4", &[], "16M"),
    row("ext4", &[], "200M"),
    row("ext4", &[], "600M"),
    row("ext4", &["-T", "news"], "64M"),
    row("ext4", &["-T", "largefile4"], "600M"),
    row("ext4", &["-T", "small,largefile"], "600M"),
    row("ext2", &["-j"], "64M"),
    // Blocks.
    row("ext4", &["-b", "1024"], "64M"),
    row("ext4", &["-b", "2048"], "64M"),
    Row { kernel: LARGE_BLOCKS, ..row("ext4", &["-b", "8192"], "64M") },
    Row { kernel: LARGE_BLOCKS, ..row("ext4", &["-b", "16384"], "128M") },
    Row { kernel: LARGE_BLOCKS, ..row("ext4", &["-b", "65536"], "256M") },
    Row { kernel: LARGE_BLOCKS, ..row("ext2", &["-b", "65536"], "256M") },
    row("ext4", &["-b", "-2048"], "64M"),
    row("ext4", &["-b", "4096"], "16384"),
    row("ext4", &[], "131072s"),
    // Inodes, groups, reserve.
    row("ext4", &["-I", "128"], "64M"),
    row("ext4", &["-I", "1024", "-b", "4096"], "64M"),
    row("ext4", &["-i", "65536"], "64M"),
    row("ext4", &["-N", "5000"], "64M"),
    row("ext4", &["-m", "0.5"], "64M"),
    row("ext4", &["-m", "12.345"], "64M"),
    row("ext4", &["-g", "1024"], "64M"),
    row("ext4", &["-G", "4"], "64M"),
    row("ext4", &["-G", "1"], "64M"),
    row("ext4", &["-G", "64", "-g", "4096"], "200M"),
    row("ext2", &["-r", "0", "-O", "none"], "16M"),
    // Words in the superblock.
    row("ext4", &["-L", "label", "-M", "/mnt/here", "-e", "remount-ro"], "16M"),
    // With metadata_csum, the kernel and e2fsck disagree on whether another system's inodes have checksums.
    row("ext4", &["-e", "panic", "-o", "freebsd", "-O", "^metadata_csum"], "16M"),
    // The Hurd has something else where Linux counts changes of a file, so nobody else may write.
    Row {
        read_only: NOT_ASKED,
        kernel: Kernel::Refuses("is not asked"),
        ..row("ext2", &["-o", "hurd"], "16M")
    },
    row("ext4", &["-D", "-m", "0"], "16M"),
    // Features.
    row("ext4", &["-O", "^has_journal"], "64M"),
    row("ext4", &["-O", "^resize_inode"], "64M"),
    row("ext4", &["-O", "^64bit"], "64M"),
    row("ext4", &["-O", "^metadata_csum"], "64M"),
    row("ext4", &["-O", "^metadata_csum,uninit_bg"], "64M"),
    row("ext4", &["-O", "^flex_bg"], "64M"),
    row("ext4", &["-O", "^sparse_super,^resize_inode"], "64M"),
    row("ext4", &["-O", "sparse_super2,^resize_inode"], "64M"),
    row("ext4", &["-O", "meta_bg,^resize_inode"], "200M"),
    row("ext4", &["-O", "meta_bg,^resize_inode,^flex_bg", "-b", "1024"], "200M"),
    row("ext4", &["-O", "^extent,^64bit"], "64M"),
    row("ext4", &["-O", "^dir_index,^dir_nlink,^huge_file,^extra_isize"], "64M"),
    row("ext4", &["-O", "^large_file,^filetype,^ext_attr"], "64M"),
    row("ext4", &["-O", "metadata_csum_seed"], "64M"),
    row("ext4", &["-O", "inline_data"], "64M"),
    row("ext4", &["-O", "ea_inode,large_dir,stable_inodes"], "64M"),
    row("ext4", &["-O", "orphan_file"], "64M"),
    row("ext4", &["-O", "fast_commit"], "64M"),
    row("ext4", &["-O", "bigalloc"], "64M"),
    row("ext4", &["-O", "bigalloc", "-b", "4096", "-C", "16384"], "200M"),
    row("ext4", &["-O", "bigalloc,^has_journal", "-b", "1024", "-C", "65536"], "64M"),
    row("ext4", &["-O", "mmp"], "64M"),
    Row { read_only: "quota", kernel: NO_QUOTA, ..row("ext4", &["-O", "quota"], "64M") },
    Row { read_only: "quota", kernel: NO_QUOTA, ..row("ext4", &["-O", "quota,project"], "64M") },
    Row { read_only: "quota", kernel: NO_QUOTA, ..row("ext3", &["-O", "quota"], "64M") },
    Row { kernel: NO_QUOTA, ..row("ext4", &["-O", "project"], "64M") },
    Row { read_only: "encrypt", ..row("ext4", &["-O", "encrypt"], "64M") },
    Row { read_only: "verity", ..row("ext4", &["-O", "verity"], "64M") },
    Row {
        read_only: "casefold",
        kernel: Kernel::Refuses("built without it"),
        ..row("ext4", &["-O", "casefold"], "64M")
    },
    // Journals.
    row("ext4", &["-J", "size=8"], "64M"),
    row("ext3", &["-J", "size=4"], "64M"),
    row("ext4", &["-J", "size=8,location=2000", "-b", "4096"], "64M"),
    row("ext4", &["-O", "fast_commit", "-J", "size=8,fast_commit_size=512"], "64M"),
    // Extended options.
    with("ext4", "stride=16,stripe_width=64", "64M"),
    Row {
        words: &["-O", "^flex_bg", "-b", "1024"],
        ..with("ext4", "stride=16,stripe-width=64", "200M")
    },
    with("ext4", "resize=1000000", "64M"),
    with("ext4", "lazy_itable_init=0,lazy_journal_init=1", "64M"),
    with("ext4", "assume_storage_prezeroed=1", "64M"),
    with("ext4", "packed_meta_blocks=1", "200M"),
    with("ext4", "root_owner=1000:1001,test_fs", "64M"),
    Row {
        read_only: "quota",
        kernel: NO_QUOTA,
        words: &["-O", "quota"],
        ..with("ext4", "quotatype=usr:prj,root_owner=7:8", "64M")
    },
    Row { words: &["-O", "sparse_super2,^resize_inode"], ..with("ext4", "num_backup_sb=1", "64M") },
    Row { words: &["-O", "sparse_super2,^resize_inode"], ..with("ext4", "num_backup_sb=0", "64M") },
    Row { words: &["-O", "mmp"], ..with("ext4", "mmp_update_interval=9", "64M") },
    Row { words: &["-O", "orphan_file"], ..with("ext4", "orphan_file_size=64", "64M") },
    with("ext4", "desc_size=128", "64M"),
    Row {
        read_only: "casefold",
        kernel: Kernel::Refuses("built without it"),
        ..with("ext4", "encoding=utf8,encoding_flags=strict", "64M")
    },
    // Configurations.
    Row { config: PERIODIC, ..row("ext4", &[], "64M") },
    Row { config: HUGEFILES, ..row("ext4", &["-T", "huge"], "64M") },
    // The blocks by which the root directory grows lie elsewhere.
    Row {
        config: MANY_HUGEFILES,
        differs: &["block_bitmap_csum"],
        // It is full.
        read_only: NOT_ASKED,
        kernel: Kernel::Refuses("is not asked"),
        ..row("ext4", &["-T", "many"], "64M")
    },
];

const PERIODIC: &str = "
[defaults]
base_features = sparse_super,filetype,dir_index,ext_attr
default_mntopts = acl,^user_xattr,journal_data_writeback
enable_periodic_fsck = yes
reserved_ratio = 2.5
errors = remount-ro
hash_alg = tea
default_features = ^ext_attr,large_file
inode_size = 512
flex_bg_size = 8
[fs_types]
ext4 = {
    features = has_journal,extent,flex_bg,uninit_bg
    options = stride=8
    blocksize = 2048
    inode_ratio = 32768
}
";

const HUGEFILES: &str = "
[defaults]
base_features = sparse_super,large_file,filetype,dir_index,ext_attr
[fs_types]
ext4 = {
    features = extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize,sparse_super2
    inode_size = 256
}
huge = {
    num_backup_sb = 0
    packed_meta_blocks = 1
    make_hugefiles = 1
    hugefiles_dir = /data
    hugefiles_name = chunk-
    hugefiles_digits = 3
    hugefiles_size = 4M
    hugefiles_slack = 2M
    hugefiles_align = 1M
    num_hugefiles = 5
    hugefiles_uid = 1000
    hugefiles_umask = 022
    zero_hugefiles = false
}
";

const MANY_HUGEFILES: &str = "
[fs_types]
ext4 = {
    features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit
    inode_size = 256
}
many = {
    make_hugefiles = 1
    hugefiles_size = 100K
}
";
