"""Every bound on input, with its unit and reason, in one place.

A bound named by a standard or an API says which. The others are ours: several times what was ever
seen, small enough that a hostile peer cannot make the enclave run out of memory or time.
"""

# --- Nitro Security Module ABI (nsm_io, linux/nsm.h) -------------------------------------------
NSM_REQUEST_MAX = 0x1000  # bytes of CBOR; the driver refuses more with EMSGSIZE
NSM_RESPONSE_MAX = 0x3000  # bytes of CBOR; the driver's own bound
NSM_RANDOM_MAX = 256  # bytes in one GetRandom answer
NSM_PCR_COUNT_MAX = 32  # max_pcrs of every module seen
NSM_EXTEND_MAX = 512  # bytes of one ExtendPCR
NSM_PCR_LENGTH = 48  # bytes; SHA-384, the digest of every module seen
NSM_MODULE_ID_MAX = 256  # characters; real ones have about 40
NSM_CBOR_DEPTH_MAX = 4  # nesting; DescribeNSM's list of locked PCRs is at three

# --- Attestation document (AWS, "Verifying the root of trust") ---------------------------------
DOCUMENT_MAX = 262_144  # bytes; KMS' limit on Recipient.AttestationDocument
DOCUMENT_PAYLOAD_MAX = 16_384  # bytes; the COSE payload
DOCUMENT_TIMESTAMP_MAX = 253_402_300_799_999  # milliseconds; the end of the year 9999
DOCUMENT_PUBLIC_KEY_MAX = 1024  # bytes
DOCUMENT_USER_DATA_MAX = 512  # bytes
DOCUMENT_NONCE_MAX = 512  # bytes
DOCUMENT_NONCE_MIN = 16  # bytes; auditors' advice: shorter nonces can be guessed or repeat
DOCUMENT_CERTIFICATE_MAX = 1024  # bytes, leaf and each of cabundle
NITRO_ROOT_FILE_MAX = 4096  # bytes, PEM or DER; AWS' root has 534 as DER
DOCUMENT_CABUNDLE_MAX = 16  # certificates; real ones have four
DOCUMENT_SIGNATURE_LENGTH = 96  # bytes; r and s of ES384 (RFC 9053, section 2.1)
DOCUMENT_CBOR_DEPTH_MAX = 8  # nesting of the payload; real ones have two
DOCUMENT_COSE_DEPTH_MAX = 2  # nesting; four parts, one an empty map. A third level could only be
# keys that are arrays, and thousands of those can be made to have one hash
DOCUMENT_PROTECTED_MAX = 64  # bytes; the longest form of {1: -35} has 28
CHAIN_CACHE_MAX = 64  # verified chains of 3 KiB; an enclave has a new one every three hours
MEASUREMENTS_MAX = 65_536  # bytes of nitro-cli's JSON; it has about 500
EIF_SECTIONS_MAX = 32  # the room in an EIF's header
EIF_KERNEL_MAX = 1_073_741_824  # bytes; a kernel with a root file system in it has 200 MiB
EIF_KERNEL_HEAD = 4_096  # bytes of it that are looked into; its headers end before 1,024
EIF_COMMAND_LINE_MAX = 2_047  # bytes; Linux cuts longer ones (COMMAND_LINE_SIZE, x86 and arm64)
EIF_RAMDISK_MAX = 1_099_511_627_776  # bytes; more than any instance's memory, and read piecewise
EIF_METADATA_MAX = 1_048_576  # bytes of JSON; what docker inspect says has some KiB
EIF_METADATA_DEPTH_MAX = 32  # nesting; what docker inspect says has six
EIF_SIGNATURE_MAX = 32_768  # bytes; a PEM certificate of 1 KiB takes 2 KiB in this form
DOCUMENT_AGE_MAX = 300.0  # seconds; KMS refuses older ones
DOCUMENT_AGE_RENEW = 240.0  # seconds; ours are made again a minute before KMS would refuse them

# --- Emulator ----------------------------------------------------------------------------------
EMULATOR_FILE_MAX = 16_384  # bytes of emulator.json; ours has about 200

# --- Recipient key -----------------------------------------------------------------------------
RECIPIENT_RSA_BITS = 2048  # KMS also takes 3072 and 4096, at 5 to 20 times the generation time
RECIPIENT_KEY_AGE_MAX = 3600.0  # seconds; bounds what one leaked key opens
RECIPIENT_KEY_ANSWERS_MAX = 10_000  # answers, for the same reason

# --- CMS of one KMS answer (RFC 5652) ----------------------------------------------------------
CMS_MAX = 16_384  # bytes; real answers have 457 to 2,900 (an RSA-4096 private key is the largest)
CMS_DEPTH_MAX = 16  # nesting of type-length-value; the deepest real field is at 11
CMS_STRING_PIECES_MAX = 64  # pieces of one constructed string
CMS_PLAINTEXT_MAX = 8_192  # bytes; KMS' largest answer is a PKCS #8 RSA-4096 key of 2,400

# --- KMS API -----------------------------------------------------------------------------------
CIPHERTEXT_MAX = 6_144  # bytes; CiphertextBlob of Decrypt
KEY_ID_MAX = 2_048  # characters
GRANT_TOKENS_MAX = 10
GRANT_TOKEN_MAX = 8_192  # characters
RANDOM_BYTES_MAX = 1_024  # NumberOfBytes of GenerateRandom and GenerateDataKey
PUBLIC_KEY_MAX = 8_192  # bytes; PublicKey of DeriveSharedSecret
ENCRYPTION_CONTEXT_MAX = 8_192  # bytes of keys and values together
POLICY_MAX = 32_768  # bytes of a key policy; KMS' quota (the service model's 131,072 is not it)
POLICY_IMAGES_MAX = 16  # images of one locked key: 800 bytes each, far inside POLICY_MAX

# --- Keys made inside --------------------------------------------------------------------------
GRANT_MARKER_MAX = 1_024  # characters of NextMarker (KMS API, MarkerType: 1,024)
GRANT_PAGES_MAX = 16  # pages of 100 grants; a key made a second ago has none
READ_BACK_ATTEMPTS = 6  # of reading a new key back: KMS is consistent only after a moment
BIRTH_STATEMENT_MAX = 65_536  # characters; a policy of `POLICY_MAX` in JSON, and the rest
BIRTH_CERTIFICATE_MAX = 524_288  # bytes; statement and document (base64) at their own bounds

# --- Sealed files (docs/formats/sealed-file.md) ------------------------------------------------
SEALED_HEADER_MAX = 65_536  # bytes of CBOR; 64 recipients on P-521 have 30,000
SEALED_RECIPIENTS_MAX = 64
SEALED_LABEL_MAX = 256  # bytes of UTF-8
SEALED_COUNTER_MAX = 2**63 - 1  # what other languages' signed integers hold
SEALED_CHUNKS_MAX = 2**30  # chunks under one key, 64 TiB: far below what AES-GCM allows

# --- HTTP --------------------------------------------------------------------------------------
HTTP_STATUS_LINE_MAX = 512  # bytes
HTTP_HEADER_COUNT_MAX = 64
HTTP_INTERIM_MAX = 4  # 1xx answers before the final one; KMS has never been seen to send any
HTTP_HEADERS_MAX = 16_384  # bytes of all header lines together
HTTP_BODY_MAX = 262_144  # bytes; the largest KMS answer seen is under 12 KiB
HTTP_MESSAGE_PRINT_MAX = 1_000  # characters of KMS' message that we repeat

# --- Names and addresses -----------------------------------------------------------------------
HOST_MAX = 253  # characters of a DNS name without its last dot (RFC 1035, section 2.3.4)
HOST_LABEL_MAX = 63  # characters between two dots (the same)
UNIX_PATH_MAX = 107  # bytes of a socket's path; sun_path of unix(7) without its NUL
VSOCK_NUMBER_MAX = 0xFFFF_FFFE  # CID and port have 32 bits, and all ones means "any" (vsock(7))

# --- Exchange with KMS -------------------------------------------------------------------------
DEADLINE = 30.0  # seconds for a whole operation, retries included
DEADLINE_MAX = 86_400.0  # seconds; more is a mistake in units, and a C timeval ends somewhere
CONNECT_TIMEOUT = 5.0  # seconds for one connect; a vsock to a port where nobody listens may hang
RETRY_ATTEMPTS = 5  # attempts in all
RETRY_BASE = 0.1  # seconds; full jitter doubles this with every attempt
RETRY_CAP = 5.0  # seconds between two attempts at most

# --- Framing and credentials -------------------------------------------------------------------
FRAME_MAX = 65_536  # bytes of one frame's payload
PEER_MESSAGE_PRINT_MAX = 200  # characters of the parent's error that we repeat
CREDENTIALS_MAX = 65_536  # bytes of a credentials JSON; session tokens have reached 4 KiB
ACCESS_KEY_ID_MAX = 128  # characters (AWS STS API, AccessKeyId)
SECRET_ACCESS_KEY_MAX = 1_024  # characters; real ones have 40
SESSION_TOKEN_MAX = 16_384  # characters; AWS states no size, and real ones have reached 4 KiB
CLOCK_SKEW_MAX = 60.0  # seconds before the caveat clock-skew

# --- Services on the parent --------------------------------------------------------------------
ENCLAVE_CID_MIN = 4  # 0 to 3 are the hypervisor, loopback, the host and the parent itself
PARENT_CONNECTIONS_MAX = 64  # at once; each is a thread, and an enclave needs one
PARENT_CONNECTIONS_PER_CID_MAX = 32  # half of those: one enclave keeps no other out
PARENT_REQUEST_SECONDS = 10.0  # for a whole request to arrive, whatever its pieces
PARENT_ANSWER_SECONDS = 10.0  # without progress while an answer is being sent
PARENT_LINGER_SECONDS = 1.0  # for a peer that has the answer to close its side
PARENT_LINGER_READS = 16  # frames' worth of what a peer still sends that was refused
PARENT_ACCEPT_PAUSE = 0.2  # seconds until accept is tried again when descriptors have run out
PARENT_GRACE = 5.0  # seconds for open connections when the service ends
RELAY_KMS_SECONDS = 20.0  # for KMS to answer the relay; under the enclave's `DEADLINE`

# --- The forwarder on the parent: defaults of its settings, and their bounds --------------------
FORWARD_CONNECTIONS = 512  # at once; an enclave's pool has tens, and each may buffer 2 directions
FORWARD_CONNECTIONS_PER_CID = 256  # half of them: one enclave that went wild leaves room for others
FORWARD_CONNECT_SECONDS = 5.0  # for the target to be connected, all its addresses included; as ours
FORWARD_IDLE_SECONDS = 350.0  # without a byte in either direction; AWS' load balancers cut then too
FORWARD_LIFETIME_SECONDS = 86_400.0  # of one connection, however busy: nothing stays for ever
FORWARD_DRAIN_SECONDS = 20.0  # for open connections to end after SIGTERM; systemd kills at 90
FORWARD_CONNECTIONS_MAX = 30_000  # two descriptors each, and one source port of a target's 28,000
FORWARD_SECONDS_MAX = 604_800.0  # a week, of every time that is set; more is a mistake in units
FORWARD_ROUTES_MAX = 64  # listeners in one process
FORWARD_BACKLOG = 1_024  # connections that wait to be accepted; the system cuts it to somaxconn
FORWARD_BUFFER = 262_144  # bytes read at once, and the most that one direction holds
FORWARD_PIPE = 1_048_576  # bytes of a pipe for bulk; pipe-max-size of an unprivileged user
FORWARD_PIPES_MAX = 32  # in use at once; half of what a user may have in pipes (pipe(7))
FORWARD_PIPES_KEPT = 4  # unused ones that wait for the next bulk
FORWARD_BULK_BEGINS = 65_536  # bytes in one read; from there on a direction carries bulk
FORWARD_BULK_ENDS = 16_384  # bytes in one go; below it there is no bulk any more
FORWARD_UNIX_BUFFER = 2_097_152  # bytes to send to a Unix socket; the system cuts it to wmem_max
FORWARD_ATTEMPT_DELAY = 0.25  # seconds between two addresses of a target (RFC 8305, section 5)
FORWARD_ADDRESSES_MAX = 8  # of one name that are used; AWS' names have under 8, a liar's thousands
FORWARD_RESOLVE_SECONDS = 30.0  # that an answer is used; AWS' names live for 5 to 60
FORWARD_RESOLVE_RETRY = 1.0  # seconds between a look-up that failed and the next
FORWARD_RESOLVE_PATIENCE = 1.0  # seconds for a name server, where an older answer is there
FORWARD_LOG_LINES = 2_048  # that wait for a slow reader of the log
FORWARD_LOG_SECONDS = 1.0  # for the last of them at the end
METRICS_CONNECTIONS_MAX = 8  # at once; Prometheus opens one
METRICS_REQUEST_MAX = 8_192  # bytes of a request; Prometheus' has 300
METRICS_SECONDS = 5.0  # for a whole exchange

# --- kmstool-parent.toml and what it names -----------------------------------------------------
PARENT_FILE_MAX = 65_536  # bytes; a file with 64 routes and comments has 8 KiB
PARENT_ALLOWLIST_MAX = 65_536  # bytes of vsock-proxy's YAML; the one AWS installs has 4 KiB
PARENT_ALLOWLIST_TARGETS_MAX = 1_024  # entries in it; AWS' has under 100
PARENT_ALLOWLIST_DEPTH_MAX = 4  # nesting of its YAML: a map, a list, maps, and one to spare
PARENT_CIDS_MAX = 1_024  # of allowed_cids; an instance runs four enclaves at most
PARENT_KEYS_MAX = 256  # key ARNs of one list
PARENT_MISTAKES_MAX = 50  # of one file that are told; whoever has more starts anew
SESSION_POLICY_MAX = 2_048  # characters of a session policy (STS API, AssumeRole, Policy)

# --- Credentials that the parent hands out -----------------------------------------------------
CREDENTIALS_REFRESH_SECONDS = 900.0  # before they expire, or half their life: EC2 has new ones 5
# minutes before, and what is left of the time is for an outage of the source
CREDENTIALS_LEFT_MIN = 5.0  # seconds; with less they are as good as expired on their way
CREDENTIALS_REREAD_SECONDS = 300.0  # until ones without an expiry are read again
CREDENTIALS_RETRY_BASE = 1.0  # seconds after the first attempt that failed; doubled each time
CREDENTIALS_RETRY_CAP = 60.0  # seconds between two attempts at most
CREDENTIALS_WAIT_SECONDS = 5.0  # for a request that finds none; under the enclave's `DEADLINE`
CREDENTIALS_START_SECONDS = 15.0  # for the first attempt before the service listens anyway
STS_SECONDS = 10.0  # for STS to answer
ROLE_SESSION_SECONDS = 3_600  # of an assumed role; AWS' default, and its bound for a chain of roles
ROLE_SESSION_SECONDS_MIN = 900  # (STS API, AssumeRole, DurationSeconds)
ROLE_SESSION_SECONDS_MAX = 43_200  # (the same)

# --- Input of the CLI --------------------------------------------------------------------------
INPUT_MAX = 1_048_576  # bytes read from a file or stdin before the operation's own bound is applied
HKDF_LENGTH_MAX = 255 * 32  # bytes; RFC 5869, section 2.3, for SHA-256
