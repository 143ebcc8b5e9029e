package configs

import (
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// The tags: yaml is the key; file, on a Secret, is the key beside it that
// names a file with the secret in it. A key without a default (setDefaults)
// that says "required" must be given; relay.yaml explains every key.

// Config is the whole configuration file.
type Config struct {
	Server     Server              `yaml:"server"`
	Admin      Admin               `yaml:"admin"`
	Redis      Redis               `yaml:"redis"`
	Storage    Storage             `yaml:"storage"`
	Merchants  map[string]Merchant `yaml:"merchants"` // by the name in /webhooks/{merchant}; at least one
	Challenges Challenges          `yaml:"challenges"`
	Retention  Retention           `yaml:"retention"`
	Auth       Auth                `yaml:"auth"`
	Push       Push                `yaml:"push"`
	App        App                 `yaml:"app"`
	Forward    Forward             `yaml:"forward"`
	Log        Log                 `yaml:"log"`
	Tracing    Tracing             `yaml:"tracing"`

	lines map[string]int
}

// Line returns the line of a key path such as "forward.targets[0].url", or 0
// if the key is not in the file.
func (c *Config) Line(key string) int { return c.lines[key] }

func (c *Config) setDefaults() {
	c.Server = Server{Listen: ":8080", AdminListen: "127.0.0.1:9090", ShutdownTimeout: 10 * time.Second, MaxBody: 64 << 10}
	c.Redis = Redis{URL: NewSecret("redis://localhost:6379/0"), KeyPrefix: "relay", Partitions: 16}
	c.Challenges = Challenges{
		TTL:    TTL{ThreeDS: 300 * time.Second, CardVerification: 600 * time.Second},
		MaxTTL: 600 * time.Second,
	}
	const days3 = 72 * time.Hour
	c.Retention = Retention{Challenges: days3, Events: days3, Deliveries: days3, Duplicates: days3}
	c.Auth = Auth{
		RateLimit: RateLimit{PerSecond: 10, Burst: 100}, StepUp: "none",
		JWT: JWT{UserClaim: "sub", Leeway: 30 * time.Second},
	}
	c.Push = Push{
		Privacy: "full", ActionToken: true, MaxSubscriptionsPerUser: 10,
		PerCardLimit:    PerCardLimit{Count: 5, Window: 10 * time.Minute},
		MuteAfterReport: 20 * time.Minute,
	}
	c.App = App{Name: "Card approvals"}
	c.Log = Log{Level: "info", Format: "json"}
}

// Server is what the public listener and the process need.
type Server struct {
	Listen          string         `yaml:"listen"`
	AdminListen     string         `yaml:"admin_listen"`
	PublicURL       string         `yaml:"public_url"` // without a slash at the end; may be empty unless pushes are on
	ShutdownTimeout time.Duration  `yaml:"shutdown_timeout"`
	MaxBody         int64          `yaml:"max_body"` // bytes
	TrustedProxies  []netip.Prefix `yaml:"trusted_proxies"`
	CORSOrigins     []string       `yaml:"cors_origins"`
}

// Admin guards the ops API.
type Admin struct {
	Token Secret `yaml:"token" file:"token_file"`
}

// Redis is where everything is kept.
type Redis struct {
	URL          Secret `yaml:"url" file:"url_file"` // may carry a password; see Embedded
	KeyPrefix    string `yaml:"key_prefix"`
	Partitions   int    `yaml:"partitions"`
	WaitReplicas int    `yaml:"wait_replicas"`
}

// Embedded tells whether the URL is the word "embedded": Redis in-process.
func (r Redis) Embedded() bool { return r.URL.Reveal() == "embedded" }

// Storage seals what is at rest.
type Storage struct {
	Keys StorageKeys `yaml:"keys"`
}

// StorageKeys are keys in base64: the first seals, all of them open.
type StorageKeys []Secret

// Bytes returns the keys decoded, 32 bytes each. Never log or print them.
func (k StorageKeys) Bytes() ([][]byte, error) {
	keys := make([][]byte, len(k))
	for i, s := range k {
		key, err := base64.StdEncoding.DecodeString(s.Reveal())
		if err != nil || len(key) != 32 {
			return nil, errors.New("storage.keys: a key is not 32 bytes in base64")
		}
		keys[i] = key
	}
	return keys, nil
}

// Merchant is one customer of the issuer platform.
type Merchant struct {
	Secrets     []MerchantSecret    `yaml:"secrets"`      // the first seals, all of them open
	ActionTypes map[string]string   `yaml:"action_types"` // event type -> three_ds | card_verification
	Fields      map[string][]string `yaml:"fields"`       // only what the file overrides
	Method      string              `yaml:"method"`       // "", approve, otp, url
	RateLimit   RateLimit           `yaml:"rate_limit"`
	IssuerAPI   *IssuerAPI          `yaml:"issuer_api"` // nil: decisions end in the relay
}

func (m *Merchant) setDefaults() {
	m.ActionTypes = map[string]string{"CARD_3DS": "three_ds", "CARD_VERIFICATION": "card_verification"}
	m.RateLimit = RateLimit{PerSecond: 5000, Burst: 10000}
}

// MerchantSecret is one key of the issuer's envelope.
type MerchantSecret struct {
	Value    Secret `yaml:"value" file:"file"`
	Encoding string `yaml:"encoding"` // utf8 | hex | base64
}

func (s *MerchantSecret) setDefaults() { s.Encoding = "utf8" }

// Key returns the key bytes: 16, 24 or 32. Never log or print them.
func (s MerchantSecret) Key() ([]byte, error) {
	var key []byte
	var err error
	switch text := s.Value.Reveal(); s.Encoding {
	case "utf8":
		key = []byte(text)
	case "hex":
		key, err = hex.DecodeString(text)
	case "base64":
		key, err = base64.StdEncoding.DecodeString(text)
	}
	// The decoders' errors quote what they were given.
	if err != nil {
		return nil, errors.New("not " + s.Encoding)
	}
	if !slices.Contains([]int{16, 24, 32}, len(key)) {
		return nil, errors.New("not 16, 24 or 32 bytes long")
	}
	return key, nil
}

// RateLimit is a token bucket.
type RateLimit struct {
	PerSecond float64 `yaml:"per_second"`
	Burst     int     `yaml:"burst"`
}

// IssuerAPI is how decisions reach the issuer.
type IssuerAPI struct {
	BaseURL    string        `yaml:"base_url"` // required; without a slash at the end
	MerchantID string        `yaml:"merchant_id"`
	Timeout    time.Duration `yaml:"timeout"`
	Confirm    *Confirm      `yaml:"confirm"`
	LockCard   *LockCard     `yaml:"lock_card"`
}

func (a *IssuerAPI) setDefaults() { a.Timeout = 5 * time.Second }

// Confirm is the call that carries a decision. Body holds JSON values (nil,
// bool, int, int64, uint64, float64, string, []any, map[string]any); strings
// such as "$card_id" stand for what relay.yaml lists.
type Confirm struct {
	Path           string          `yaml:"path"`
	Body           map[string]any  `yaml:"body"`
	DecisionValues DecisionValues  `yaml:"decision_values"`
	Retry          []time.Duration `yaml:"retry"` // the last one repeats until the challenge expires
}

func (c *Confirm) setDefaults() {
	c.Retry = []time.Duration{250 * time.Millisecond, 500 * time.Millisecond,
		time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}
}

// DecisionValues are the JSON values that stand for "$decision".
type DecisionValues struct {
	Approve any `yaml:"approve"`
	Reject  any `yaml:"reject"`
}

// LockCard is the call made when a cardholder reports "not me". Body is as in
// Confirm, without "$decision".
type LockCard struct {
	Path string         `yaml:"path"`
	Body map[string]any `yaml:"body"`
}

// Challenges is how long a challenge waits for its cardholder.
type Challenges struct {
	TTL          TTL           `yaml:"ttl"`
	MaxTTL       time.Duration `yaml:"max_ttl"`
	RequireShown bool          `yaml:"require_shown"`
}

// TTL is the lifetime by kind where the issuer sends no expiry.
type TTL struct {
	ThreeDS          time.Duration `yaml:"three_ds"`
	CardVerification time.Duration `yaml:"card_verification"`
}

// Retention is how long records are kept.
type Retention struct {
	Challenges time.Duration `yaml:"challenges"`
	Events     time.Duration `yaml:"events"`
	Deliveries time.Duration `yaml:"deliveries"`
	Duplicates time.Duration `yaml:"duplicates"`
}

// Auth is how cardholders prove who they are.
type Auth struct {
	RateLimit RateLimit `yaml:"rate_limit"` // per user
	StepUp    string    `yaml:"step_up"`    // none | passkey
	Above     string    `yaml:"above"`      // "30.00 EUR"; "": everything needs the step-up
	AboveThis Money     `yaml:"-"`          // read from Above
	JWT       JWT       `yaml:"jwt"`
}

// Money is an amount as a decimal, and an ISO 4217 code.
type Money struct{ Amount, Currency string }

// JWT says which tokens are good. Exactly one of HS256Secret, PublicKey and
// JWKSURL is set.
type JWT struct {
	Issuer        string           `yaml:"issuer"`
	Audience      string           `yaml:"audience"`
	UserClaim     string           `yaml:"user_claim"`
	MerchantClaim string           `yaml:"merchant_claim"`
	Leeway        time.Duration    `yaml:"leeway"`
	HS256Secret   Secret           `yaml:"hs256_secret" file:"hs256_secret_file"`
	PublicKeyFile string           `yaml:"public_key_file"`
	PublicKey     crypto.PublicKey `yaml:"-"` // read from PublicKeyFile: *rsa.PublicKey, *ecdsa.PublicKey (P-256) or ed25519.PublicKey
	JWKSURL       string           `yaml:"jwks_url"`
}

// Push is Web Push.
type Push struct {
	VAPID                   VAPID         `yaml:"vapid"`
	IncludeOTP              bool          `yaml:"include_otp"`
	Privacy                 string        `yaml:"privacy"` // full | minimal
	ActionToken             bool          `yaml:"action_token"`
	EndpointHosts           []string      `yaml:"endpoint_hosts"` // host, host:port or *.suffix, lower case
	AllowPrivateNetworks    bool          `yaml:"allow_private_networks"`
	MaxSubscriptionsPerUser int           `yaml:"max_subscriptions_per_user"`
	PerCardLimit            PerCardLimit  `yaml:"per_card_limit"`
	MuteAfterReport         time.Duration `yaml:"mute_after_report"`
}

// VAPID is the relay's identity towards push services (RFC 8292). Either all
// three are set, and the keys are a pair, or none.
type VAPID struct {
	Subject    string `yaml:"subject"`
	PublicKey  string `yaml:"public_key"`
	PrivateKey Secret `yaml:"private_key" file:"private_key_file"`
}

// PerCardLimit bounds the pushes for one card.
type PerCardLimit struct {
	Count  int           `yaml:"count"`
	Window time.Duration `yaml:"window"`
}

// App is how the cardholder app presents itself.
type App struct {
	Name       string `yaml:"name"`
	Accent     string `yaml:"accent"` // #rrggbb; the app's own, if empty
	LogoFile   string `yaml:"logo_file"`
	Logo       []byte `yaml:"-"`           // read from LogoFile; nil without one
	LogoType   string `yaml:"-"`           // image/png or image/svg+xml
	SupportURL string `yaml:"support_url"` // https, mailto or tel
	LoginURL   string `yaml:"login_url"`   // where the app sends whose session has ended
}

// Forward is where events go.
type Forward struct {
	Targets []Target `yaml:"targets"`
}

// Target is one downstream URL.
type Target struct {
	Name       string            `yaml:"name"`
	URL        string            `yaml:"url"`
	Events     []string          `yaml:"events"`
	Merchants  []string          `yaml:"merchants"` // all, if empty
	Format     string            `yaml:"format"`    // json | envelope
	IncludeOTP bool              `yaml:"include_otp"`
	Secrets    []Secret          `yaml:"secrets"` // "whsec_" and base64, as Standard Webhooks writes them
	Headers    map[string]Secret `yaml:"headers"` // often credentials, so redacted
	Timeout    time.Duration     `yaml:"timeout"`
	// Concurrency is the number of requests in flight at a time.
	Concurrency int             `yaml:"concurrency"`
	MaxBacklog  int             `yaml:"max_backlog"`
	Retry       []time.Duration `yaml:"retry"` // without the ±20 % jitter
}

func (t *Target) setDefaults() {
	t.Events = []string{"*"}
	t.Format = "json"
	t.Timeout = 10 * time.Second
	t.Concurrency = 16
	t.MaxBacklog = 100000
	t.Retry = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute,
		30 * time.Minute, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour}
}

// Log is how the relay logs.
type Log struct {
	Level  string `yaml:"level"`  // debug | info | warn | error
	Format string `yaml:"format"` // json | text
}

// Tracing is where spans go; nowhere, if the endpoint is empty.
type Tracing struct {
	OTLPEndpoint string `yaml:"otlp_endpoint"`
}
