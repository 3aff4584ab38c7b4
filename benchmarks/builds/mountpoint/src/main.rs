//! Mounts a bucket with Mountpoint's published library as `mount-s3` does with its defaults, unsigned and path style.
//!
//! The command itself is not on crates.io. What is set here are the defaults of the command: 10 Gbps of target
//! throughput, 8 MiB parts, 16 FUSE threads, 95 % of the memory, jemalloc, INIT and prefetcher untouched. Two things
//! are in the peer's favour: `--metadata-ttl` (the benchmark passes the value AWS recommends for training), and no upload
//! checksums, which its documentation advises for servers that are not S3.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use mountpoint_s3_client::config::{AddressingStyle, S3ClientAuthConfig};
use mountpoint_s3_client::user_agent::UserAgent;
use mountpoint_s3_fs::data_cache::DataCacheConfig;
use mountpoint_s3_fs::fs::{CacheConfig, TimeToLive};
use mountpoint_s3_fs::fuse::config::{FuseOptions, FuseSessionConfig, MountPoint};
use mountpoint_s3_fs::memory::{CandidateSize, PagedPool};
use mountpoint_s3_fs::s3::config::{ClientConfig, MemoryLimitSetting, PartConfig, Region, TargetThroughputSetting};
use mountpoint_s3_fs::s3::{Bucket, Prefix, S3Path};
use mountpoint_s3_fs::{MountpointConfig, Runtime, S3FilesystemConfig, Superblock, SuperblockConfig};

#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8] = b"abort_conf:true,background_thread:true,narenas:32\0";

const PART_SIZE: usize = 8 << 20;
const THREADS: usize = 16;

#[derive(Parser)]
struct Arguments {
    bucket: String,
    directory: PathBuf,
    #[arg(long)]
    endpoint: String,
    #[arg(long, default_value = "")]
    prefix: String,
    #[arg(long, default_value_t = 0)]
    metadata_ttl: u64,
    /// Bytes the buffers may take
    #[arg(long)]
    memory: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let part_config = PartConfig::with_part_size(PART_SIZE).validate(MemoryLimitSetting::Default(arguments.memory))?;
    let pool = PagedPool::config()
        .with_candidate_sizes([CandidateSize::new(PART_SIZE)])
        .with_memory_limit(arguments.memory)
        .build();
    let client = ClientConfig {
        region: Region::new_user_specified("us-east-1".to_string()),
        endpoint_url: Some(arguments.endpoint),
        addressing_style: AddressingStyle::Path,
        dual_stack: false,
        transfer_acceleration: false,
        auth_config: S3ClientAuthConfig::NoSigning,
        requester_pays: false,
        expected_bucket_owner: None,
        throughput_target: TargetThroughputSetting::Default,
        bind: None,
        part_config,
        user_agent: UserAgent::new(None),
        tls_config: None,
    }
    .create_client(pool.clone(), None)
    .context("cannot create the S3 client")?;
    let runtime = Runtime::new(client.event_loop_group());
    let cache_config = match arguments.metadata_ttl {
        0 => CacheConfig::default(),
        seconds => CacheConfig::new(TimeToLive::Duration(Duration::from_secs(seconds))),
    };
    let filesystem = S3FilesystemConfig {
        cache_config: cache_config.clone(),
        allow_delete: true,
        allow_overwrite: true,
        upload_checksum_algorithm: None,
        ..Default::default()
    };
    let superblock = Superblock::new(
        client.clone(),
        S3Path::new(Bucket::new(arguments.bucket)?, Prefix::new(&arguments.prefix)?),
        SuperblockConfig { cache_config, s3_personality: filesystem.s3_personality },
    );
    let options = FuseOptions { allow_other: true, ..Default::default() };
    let session = FuseSessionConfig::new(MountPoint::new(&arguments.directory)?, options, THREADS)?;
    MountpointConfig::new(session, filesystem, DataCacheConfig::default())?
        .create_fuse_session(superblock, client, runtime, pool)
        .context("cannot mount")?
        .join()
        .context("the session failed")
}
