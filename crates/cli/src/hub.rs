//! `fleetpass hub`.

use crate::args::{EtcdArgs, HubArgs};
use crate::control_plane::{self, ControlPlane};
use crate::net;
use crate::open_files;
use crate::settings::{AuditLog, CertificateFiles, EtcdServers, HubRole, Role, Settings, Storage};
use crate::signals::stop_on_signal;
use fleetpass_api::clock;
use fleetpass_apiserver::audit::Rotation;
use fleetpass_apiserver::{ConnectionLimits, RequestLimits};
use std::time::Duration;

/// Runs the hub until a signal.
///
/// # Errors
///
/// It cannot start, or a part of it ended.
pub(crate) async fn run(args: HubArgs) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    // The port before anything else: that it is taken is the most frequent mistake, and is told at once.
    let listener = net::bind(args.bind_address, args.secure_port, "--secure-port").await?;
    let connections = connection_limits(&args, open_files::raise())?;
    let settings = settings(args, connections);
    let kubeconfig = settings.kubeconfig.clone();
    let starting = ControlPlane::start(settings, listener, clock::system());
    // Interrupted while it starts, it ends as a crash would end it: the store is made for that, and files are there whole
    // or not at all.
    let mut control_plane = tokio::select! {
        started = starting => started?,
        () = stop.cancelled() => return Ok(()),
    };
    tracing::info!(url = control_plane.url, kubeconfig = %kubeconfig.display(), "the hub is ready");
    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        error = control_plane.failed() => Err(error),
    };
    tracing::info!("the hub is stopping");
    control_plane::stop(vec![control_plane]).await;
    result
}

fn settings(args: HubArgs, connections: ConnectionLimits) -> Settings {
    let limits = request_limits(&args);
    Settings {
        name: "hub".into(),
        kubeconfig: args.data_dir.join("admin.kubeconfig"),
        directory: args.data_dir,
        role: Role::Hub(HubRole { features: args.feature_gates, max_validity: args.max_validity }),
        certificate: args
            .tls_cert_file
            .zip(args.tls_private_key_file)
            .map(|(chain, key)| CertificateFiles { chain, key }),
        client_ca_file: args.client_ca_file,
        token_auth_file: args.token_auth_file,
        issuers: args.service_account_issuer,
        api_audiences: args.api_audiences,
        max_token_expiration: args.service_account_max_token_expiration,
        signing_key_file: args.service_account_signing_key_file,
        key_files: args.service_account_key_file,
        storage: match args.etcd.servers.as_slice() {
            [] => Storage::Embedded,
            _ => Storage::Etcd(args.etcd.into()),
        },
        encrypt_secrets: args.encrypt_secrets,
        audit_log: args.audit_log_path.map(|path| {
            if path.as_os_str() == "-" {
                return AuditLog::Stdout;
            }
            let rotation = Rotation {
                max_bytes: u64::from(args.audit_log_maxsize) << 20,
                max_backups: usize::try_from(args.audit_log_maxbackup).unwrap_or(usize::MAX),
                max_age_days: args.audit_log_maxage,
            };
            AuditLog::File(path, rotation)
        }),
        limits,
        connections,
    }
}

fn request_limits(args: &HubArgs) -> RequestLimits {
    let slots = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    RequestLimits {
        reading: slots(args.max_requests_inflight),
        mutating: slots(args.max_mutating_requests_inflight),
        timeout: args.request_timeout,
        min_watch: Duration::from_secs(args.min_request_timeout.into()),
    }
}

/// The limits of connections. They follow from the limit of open files where no flag says otherwise.
///
/// # Errors
///
/// The flag asks for more connections than files can be opened.
fn connection_limits(args: &HubArgs, files: usize) -> anyhow::Result<ConnectionLimits> {
    let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let most = open_files::for_connections(files);
    let all = match number(args.max_connections) {
        0 => most.min(ConnectionLimits::default().all),
        all => all,
    };
    anyhow::ensure!(
        all <= most,
        "--max-connections {all}: the process may open {files} files, which is enough for {most} connections; raise the \
         limit (ulimit -Hn, LimitNOFILE=) or choose fewer"
    );
    let or = |given: u32, default: usize| if given == 0 { default } else { number(given) };
    let default = ConnectionLimits::of(all);
    Ok(ConnectionLimits {
        all,
        per_address: or(args.max_connections_per_address, default.per_address),
        unauthenticated: or(args.max_unauthenticated_connections, default.unauthenticated),
        handshakes: number(args.max_tls_handshakes),
        request_bytes: number(args.max_buffered_requests_mb).saturating_mul(1 << 20),
        answer_bytes: number(args.max_unread_answers_mb).saturating_mul(1 << 20),
    })
}

impl From<EtcdArgs> for EtcdServers {
    fn from(args: EtcdArgs) -> Self {
        Self {
            servers: args.servers,
            prefix: args.prefix,
            ca_file: args.cafile,
            client_files: args.certfile.zip(args.keyfile),
            compaction_interval: Some(args.compaction_interval).filter(|interval| !interval.is_zero()),
        }
    }
}
