//! Directives that are one word each: what is so here without a word, and what there is not.

/// What is so here, or of no use, by the names of directives.
const BY_ITSELF: &[(&[&str], &str)] = &[
    (
        &[
            "worker_processes",
            "worker_rlimit_nofile",
            "worker_connections",
            "worker_cpu_affinity",
            "worker_priority",
            "multi_accept",
            "use",
            "events",
            "accept_mutex",
            "thread_pool",
            "pcre_jit",
            "daemon",
            "master_process",
            "env",
            "worker_shutdown_timeout",
            "timer_resolution",
        ],
        "the proxy uses all cores, and as many descriptors as it may",
    ),
    (
        &["pid", "lock_file"],
        "systemd knows the process; `stack up --pid FILE` writes a file",
    ),
    (&["load_module"], "there are no modules"),
    (
        &[
            "sendfile",
            "tcp_nopush",
            "tcp_nodelay",
            "aio",
            "directio",
            "sendfile_max_chunk",
            "output_buffers",
            "postpone_output",
            "open_file_cache",
            "open_file_cache_valid",
            "open_file_cache_min_uses",
            "open_file_cache_errors",
            "disable_symlinks",
        ],
        "files are sent as the kernel does it best, and kept open and in memory while they are wanted",
    ),
    (
        &[
            "types_hash_max_size",
            "types_hash_bucket_size",
            "server_names_hash_bucket_size",
            "server_names_hash_max_size",
            "variables_hash_max_size",
            "variables_hash_bucket_size",
            "map_hash_bucket_size",
            "map_hash_max_size",
            "proxy_headers_hash_max_size",
            "proxy_headers_hash_bucket_size",
            "connection_pool_size",
            "request_pool_size",
        ],
        "tables are as large as they must be",
    ),
    (
        &["server_tokens"],
        "no version is ever shown; `server_header = false` leaves out the name as well",
    ),
    (
        &[
            "default_type",
            "types",
            "charset",
            "charset_types",
            "override_charset",
        ],
        "the types of files are built in, text as UTF-8; `types` of a route adds others",
    ),
    (
        &[
            "gzip_types",
            "gzip_vary",
            "gzip_proxied",
            "gzip_comp_level",
            "gzip_min_length",
            "gzip_buffers",
            "gzip_http_version",
            "gzip_disable",
            "gzip_static",
            "gunzip",
            "brotli",
            "brotli_static",
            "brotli_types",
            "brotli_comp_level",
            "zstd",
            "zstd_static",
            "zstd_types",
        ],
        "text goes out as zstd, br or gzip where that is a gain, and `app.js.gz` beside `app.js` is used",
    ),
    (
        &[
            "ssl_protocols",
            "ssl_ciphers",
            "ssl_prefer_server_ciphers",
            "ssl_session_cache",
            "ssl_session_timeout",
            "ssl_session_tickets",
            "ssl_session_ticket_key",
            "ssl_dhparam",
            "ssl_ecdh_curve",
            "ssl_buffer_size",
            "ssl_conf_command",
            "ssl_early_data",
            "ssl",
            "ssl_trusted_certificate",
            "ssl_reject_handshake",
        ],
        "TLS 1.2 and 1.3 are spoken, with modern ciphers, and sessions are resumed",
    ),
    (
        &[
            "http2",
            "http2_max_concurrent_streams",
            "http2_push",
            "http2_push_preload",
            "http2_chunk_size",
            "http2_body_preread_size",
            "http2_max_field_size",
            "http2_max_header_size",
            "http2_max_requests",
            "http2_idle_timeout",
        ],
        "HTTP/2 is spoken wherever TLS is",
    ),
    (
        &[
            "proxy_http_version",
            "proxy_set_body",
            "proxy_pass_request_headers",
            "proxy_pass_request_body",
            "proxy_socket_keepalive",
            "uwsgi_param",
            "uwsgi_buffers",
            "uwsgi_buffer_size",
            "uwsgi_buffering",
            "uwsgi_pass_header",
            "proxy_pass_header",
            "uwsgi_send_timeout",
        ],
        "the app finds in its environ what WSGI says",
    ),
    (
        &["proxy_redirect"],
        "apps and upstreams know by which name they were asked, so their redirects are right",
    ),
    (
        &[
            "proxy_buffers",
            "proxy_buffer_size",
            "proxy_busy_buffers_size",
            "proxy_max_temp_file_size",
            "proxy_temp_file_write_size",
            "proxy_temp_path",
            "client_body_temp_path",
            "client_body_in_file_only",
            "client_body_in_single_buffer",
            "fastcgi_buffers",
            "fastcgi_buffer_size",
            "proxy_buffering",
            "chunked_transfer_encoding",
            "proxy_force_ranges",
            "grpc_buffer_size",
            "client_body_buffer_size",
        ],
        "responses are taken at the app's speed, into memory and then files; events are passed on as they come",
    ),
    (
        &[
            "proxy_send_timeout",
            "proxy_next_upstream",
            "proxy_next_upstream_tries",
            "proxy_next_upstream_timeout",
            "grpc_send_timeout",
            "grpc_set_header",
            "grpc_connect_timeout",
            "proxy_ignore_client_abort",
        ],
        "a request goes to another member only if nothing of it has been sent",
    ),
    (
        &[
            "proxy_ssl_server_name",
            "proxy_ssl_name",
            "proxy_ssl_verify",
            "proxy_ssl_verify_depth",
            "proxy_ssl_protocols",
            "proxy_ssl_ciphers",
            "proxy_ssl_session_reuse",
            "grpc_ssl_server_name",
            "grpc_ssl_verify",
        ],
        "upstreams with TLS are verified, always",
    ),
    (
        &["real_ip_recursive"],
        "the list of addresses is read from its end up to the first that nobody trusts",
    ),
    (
        &[
            "reset_timedout_connection",
            "lingering_close",
            "lingering_time",
            "lingering_timeout",
            "keepalive_disable",
            "msie_padding",
            "msie_refresh",
            "large_client_header_buffers",
            "client_header_buffer_size",
            "ignore_invalid_headers",
            "underscores_in_headers",
            "merge_slashes",
            "server_name_in_redirect",
            "port_in_redirect",
            "absolute_redirect",
            "recursive_error_pages",
            "log_not_found",
            "log_subrequest",
            "etag",
            "if_modified_since",
            "max_ranges",
            "resolver_timeout",
            "variables_hash",
        ],
        "that is so, or as strict as it should be",
    ),
    (
        &["resolver"],
        "names of upstreams are looked up as the system does it, again and again",
    ),
    (
        &["limit_req_status", "limit_conn_status"],
        "it is 429, which says what it is (RFC 6585)",
    ),
    (
        &[
            "limit_req_log_level",
            "limit_conn_log_level",
            "limit_req_dry_run",
        ],
        "the access log has the cause `rate-limited`",
    ),
    (
        &[
            "least_conn",
            "zone",
            "keepalive_requests_upstream",
            "random",
        ],
        "the member with the fewest requests gets the next",
    ),
    (
        &["break", "uninitialized_variable_warn", "rewrite_log"],
        "there are no rewrites",
    ),
];

/// What there is not, by the names of directives or how they begin.
const LEFT: &[(&[&str], &str)] = &[
    (
        &[
            "fastcgi_pass",
            "fastcgi_param",
            "fastcgi_index",
            "fastcgi_split_path_info",
            "fastcgi_read_timeout",
            "fastcgi_intercept_errors",
        ],
        "there is no FastCGI: PHP goes on under nginx or Caddy, behind a route with `upstream`",
    ),
    (
        &["scgi_pass", "memcached_pass"],
        "only HTTP is spoken to other servers: a route with `upstream`",
    ),
    (
        &["proxy_cache", "fastcgi_cache", "uwsgi_cache"],
        "there is no cache of responses: let the app say `Cache-Control`, or put a CDN before it",
    ),
    (
        &["proxy_set_header"],
        "apps and upstreams get the client's fields as they are; set others in the app, or remove this",
    ),
    (
        &[
            "proxy_cookie",
            "sub_filter",
            "addition",
            "add_before_body",
            "add_after_body",
            "ssi",
            "image_filter",
            "xslt",
        ],
        "content and cookies are passed on as they are: change them in the app",
    ),
    (
        &["rewrite"],
        "a route with `redirect` sends elsewhere; the app's own routes do the rest",
    ),
    (
        &["auth_request"],
        "`auth = { forward = \"http://…\" }` asks another server (`stack reference`)",
    ),
    (
        &["stub_status", "status", "vhost_traffic_status", "api"],
        "`stack status`, and metrics for Prometheus (docs/metrics.md)",
    ),
    (
        &["geoip", "geo"],
        "there is no table of addresses: `allow` and `deny`, or let the app decide",
    ),
    (
        &["map", "split_clients"],
        "there are no variables: let the app decide",
    ),
    (&["set", "set_by"], "there are no variables"),
    (&["stream", "mail"], "only HTTP is served"),
    (
        &[
            "ssl_stapling",
            "ssl_stapling_verify",
            "ssl_stapling_file",
            "ssl_stapling_responder",
        ],
        "`tls = { cert = …, key = …, ocsp = \"response.der\" }`, where the authority still has OCSP",
    ),
    (
        &["ssl_password_file"],
        "take the password off the key: `openssl pkey -in key.pem -out plain.pem`",
    ),
    (
        &["ssl_crl", "ssl_ocsp"],
        "certificates of clients are not looked up in lists",
    ),
    (
        &["ip_hash", "hash", "sticky", "ntlm"],
        "requests go to the member with the fewest: keep sessions where all members find them",
    ),
    (
        &["proxy_intercept_errors"],
        "what an app answers is passed on; `errors` are for what stack answers itself",
    ),
    (
        &[
            "proxy_method",
            "proxy_bind",
            "proxy_ssl_certificate",
            "proxy_ignore_headers",
            "proxy_store",
            "proxy_limit_rate",
        ],
        "there is nothing like it for upstreams",
    ),
    (
        &["limit_rate"],
        "there is no limit to the speed of one response",
    ),
    (
        &["limit_except"],
        "the app knows its methods; files take GET and HEAD alone",
    ),
    (&["mirror"], "requests are not copied"),
    (
        &["dav_", "create_full_put_path"],
        "files are only read: write them by the app",
    ),
    (
        &[
            "random_index",
            "autoindex_format",
            "autoindex_exact_size",
            "autoindex_localtime",
        ],
        "`listing = true` shows a folder as a page or as JSON",
    ),
    (
        &[
            "content_by_lua",
            "access_by_lua",
            "rewrite_by_lua",
            "lua_",
            "js_",
            "perl",
        ],
        "there are no scripts in the proxy: the app is where code is",
    ),
    (
        &["modsecurity", "SecRule"],
        "there is no web application firewall inside: put one in front, and name it in `trusted_proxies`",
    ),
    (
        &["more_set_headers", "more_clear_headers"],
        "`headers = { NAME = \"value\", OTHER = false }`",
    ),
    (
        &["valid_referers", "secure_link", "userid"],
        "let the app decide",
    ),
    (
        &["if"],
        "there are no conditions: let the app decide, or make it a site of its own",
    ),
    (&["proxy_hide_header"], "`headers = { NAME = false }`"),
];

/// Includes that only say what is so here.
const KNOWN_FILES: &[(&str, &str)] = &[
    ("mime.types", "the types of files are built in"),
    ("proxy_params", "apps know their clients without it"),
    ("uwsgi_params", "WSGI has them"),
    ("fastcgi_params", "there is no FastCGI"),
    ("fastcgi.conf", "there is no FastCGI"),
    ("fastcgi-php.conf", "there is no FastCGI"),
    ("options-ssl-nginx.conf", "TLS is modern by itself"),
    ("ssl-params.conf", "TLS is modern by itself"),
    ("modules-enabled", "there are no modules"),
];

/// Why nothing need be said.
pub(super) fn by_itself(name: &str) -> Option<&'static str> {
    let found = BY_ITSELF.iter().find(|(names, _)| names.contains(&name));
    found.map(|(_, why)| *why)
}

/// What to do in place of a directive.
pub(super) fn instead(name: &str) -> &'static str {
    let is = |known: &&str| {
        name == *known
            || (known.len() > 4 || known.ends_with('_'))
                && name
                    .strip_prefix(*known)
                    .is_some_and(|rest| known.ends_with('_') || rest.starts_with('_'))
    };
    let found = LEFT.iter().find(|(names, _)| names.iter().any(&is));
    found.map_or(
        "there is nothing like it; `stack reference` has what there is",
        |(_, what)| *what,
    )
}

/// What is switched off that there is not here.
pub(super) const OFF: &str = "it is off, and not here";

/// Why a file need not be read.
pub(super) fn known_file(path: &str) -> Option<&'static str> {
    let found = KNOWN_FILES
        .iter()
        .find(|(name, _)| path.split('/').any(|part| part == *name));
    found.map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_no_others() {
        assert!(by_itself("sendfile").is_some() && by_itself("send").is_none());
        assert!(instead("proxy_cache_path").contains("no cache"));
        assert!(instead("geoip2").contains("nothing like it"));
        assert!(instead("geo").contains("addresses") && instead("map").contains("variables"));
        assert!(
            instead("set_by_lua_block").contains("variables")
                && instead("settle").contains("nothing")
        );
        assert!(instead("lua_shared_dict").contains("scripts"));
        assert!(known_file("/etc/nginx/mime.types").is_some());
        assert!(known_file("/etc/nginx/modules-enabled/*.conf").is_some());
        assert!(known_file("sites-enabled/*").is_none());
    }
}
