package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"approvalrelay/api"
	"approvalrelay/api/web"
	"approvalrelay/configs"
	"approvalrelay/crypto"
	"approvalrelay/crypto/passkey"
	"approvalrelay/push"
	"approvalrelay/relay"
	"approvalrelay/relay/forward"
	"approvalrelay/relay/redisstore"
)

// The functions of this file translate the configuration into what each package
// takes. They decide nothing.

// newLogger returns its level as well, which can be changed.
func newLogger(c configs.Log) (*slog.Logger, *slog.LevelVar) {
	level := &slog.LevelVar{}
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level.Set(slog.LevelInfo) // validated when it was loaded
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(os.Stderr, o)), level
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, o)), level
}

func keyring(m configs.Merchant) (*crypto.Keyring, error) {
	var secrets []crypto.Secret
	for _, s := range m.Secrets {
		secret, err := crypto.ParseSecret(s.Value.Reveal(), crypto.Encoding(s.Encoding))
		if err != nil {
			return nil, err
		}
		secrets = append(secrets, secret)
	}
	return crypto.NewKeyring(secrets...)
}

func newVault(cfg *configs.Config) (*crypto.Vault, error) {
	keys, err := cfg.Storage.Keys.Bytes()
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 { // only the embedded Redis may do without: it forgets everything as well
		keys = [][]byte{crypto.GenerateKey()}
	}
	return crypto.NewVault(keys...)
}

func openStore(cfg *configs.Config, node string, log *slog.Logger, metrics prometheus.Registerer) (*redisstore.Store, error) {
	vault, err := newVault(cfg)
	if err != nil {
		return nil, err
	}
	return redisstore.Open(redisstore.Options{
		URL: cfg.Redis.URL.Reveal(), Prefix: cfg.Redis.KeyPrefix, Partitions: cfg.Redis.Partitions, WaitReplicas: cfg.Redis.WaitReplicas,
		Retention: redisstore.Retention{Challenges: cfg.Retention.Challenges, Events: cfg.Retention.Events, Deliveries: cfg.Retention.Deliveries},
		Vault:     vault, Node: node, Log: log, Metrics: metrics,
	})
}

func domainOptions(cfg *configs.Config) (relay.Options, error) {
	o := relay.Options{
		Merchants: map[string]*relay.Merchant{},
		Lives: relay.Lifetimes{
			TTL: map[relay.ChallengeKind]time.Duration{relay.ThreeDS: cfg.Challenges.TTL.ThreeDS, relay.CardVerification: cfg.Challenges.TTL.CardVerification},
			Max: cfg.Challenges.MaxTTL,
		},
		Retention: map[string]float64{
			"challenges_seconds": cfg.Retention.Challenges.Seconds(), "events_seconds": cfg.Retention.Events.Seconds(),
			"deliveries_seconds": cfg.Retention.Deliveries.Seconds(), "duplicates_seconds": cfg.Retention.Duplicates.Seconds(),
		},
		RequireShown: cfg.Challenges.RequireShown, Duplicates: cfg.Retention.Duplicates, PublicURL: cfg.Server.PublicURL,
		Push: relay.PushOptions{
			On: cfg.Push.VAPID.PublicKey != "", IncludeOTP: cfg.Push.IncludeOTP, Minimal: cfg.Push.Privacy == "minimal", ActionToken: cfg.Push.ActionToken,
			MaxSubscriptions: cfg.Push.MaxSubscriptionsPerUser, CardCount: cfg.Push.PerCardLimit.Count, CardWindow: cfg.Push.PerCardLimit.Window,
			MuteAfterReport: cfg.Push.MuteAfterReport,
		},
	}
	if cfg.Auth.StepUp == "passkey" {
		var err error
		if o.StepUp.Party, err = passkey.New(cfg.Server.PublicURL, cfg.App.Name, cfg.Server.CORSOrigins, relay.StepUpTime); err != nil {
			return o, fmt.Errorf("auth.step_up: %w", err)
		}
		o.StepUp.Above = relay.Threshold(cfg.Auth.AboveThis)
	}
	for name, m := range cfg.Merchants {
		ring, err := keyring(m)
		if err != nil {
			return o, fmt.Errorf("merchants.%s.secrets: %w", name, err)
		}
		rm := &relay.Merchant{Name: name, Actions: map[string]relay.ChallengeKind{}, Mapping: relay.DefaultMapping().With(m.Fields), Method: relay.Method(m.Method), Keyring: ring}
		for typ, kind := range m.ActionTypes {
			rm.Actions[typ] = relay.ChallengeKind(kind)
		}
		if a := m.IssuerAPI; a != nil {
			rm.Confirm, rm.Lock = a.Confirm != nil, a.LockCard != nil
			if a.Confirm != nil {
				rm.Retry = relay.Schedule{Retry: a.Confirm.Retry, RepeatLast: true}
			}
		}
		o.Merchants[name] = rm
	}
	for _, t := range cfg.Forward.Targets {
		o.Targets = append(o.Targets, relay.Target{
			Name: t.Name, Events: t.Events, Merchants: t.Merchants, Envelope: t.Format == "envelope", IncludeOTP: t.IncludeOTP,
			Concurrency: t.Concurrency, MaxBacklog: t.MaxBacklog, Schedule: relay.Schedule{Retry: t.Retry},
		})
	}
	return o, nil
}

func newDownstream(cfg *configs.Config) (*forward.Downstream, error) {
	var targets []forward.Target
	for _, t := range cfg.Forward.Targets {
		ft := forward.Target{Name: t.Name, URL: t.URL, Timeout: t.Timeout, Concurrency: t.Concurrency, Envelope: t.Format == "envelope", Headers: map[string]string{}}
		for _, s := range t.Secrets {
			ft.Secrets = append(ft.Secrets, s.Reveal())
		}
		for k, v := range t.Headers {
			ft.Headers[k] = v.Reveal()
		}
		targets = append(targets, ft)
	}
	return forward.NewDownstream(targets)
}

func newIssuer(cfg *configs.Config, merchants map[string]*relay.Merchant) (*forward.Issuer, error) {
	apis := map[string]forward.IssuerAPI{}
	for name, m := range cfg.Merchants {
		a := m.IssuerAPI
		if a == nil {
			continue
		}
		f := forward.IssuerAPI{BaseURL: a.BaseURL, MerchantID: a.MerchantID, Timeout: a.Timeout, Keyring: merchants[name].Keyring, Mapping: merchants[name].Mapping}
		if c := a.Confirm; c != nil {
			f.Confirm = &forward.Call{Path: c.Path, Body: c.Body, Decisions: map[relay.Action]any{relay.Approve: c.DecisionValues.Approve, relay.Reject: c.DecisionValues.Reject}}
		}
		if l := a.LockCard; l != nil {
			f.Lock = &forward.Call{Path: l.Path, Body: l.Body}
		}
		apis[name] = f
	}
	return forward.NewIssuer(apis)
}

func newAuth(ctx context.Context, cfg *configs.Config, log *slog.Logger) (*api.Auth, error) {
	j := cfg.Auth.JWT
	o := api.JWTOptions{
		Issuer: j.Issuer, Audience: j.Audience, UserClaim: j.UserClaim, MerchantClaim: j.MerchantClaim, Leeway: j.Leeway,
		HS256Secret: api.Secret(j.HS256Secret.Reveal()), PublicKey: j.PublicKey, JWKSURL: j.JWKSURL, Log: log,
	}
	if j.MerchantClaim == "" {
		name, err := oneMerchant(cfg, "")
		if err != nil {
			return nil, err
		}
		o.SingleMerchant = name
	}
	return api.NewAuth(ctx, o, time.Now)
}

func brand(a configs.App) web.Brand {
	return web.Brand{Name: a.Name, Accent: a.Accent, Logo: a.Logo, LogoType: a.LogoType, SupportURL: a.SupportURL, LoginURL: a.LoginURL}
}

// newPusher is nil without VAPID keys: then nothing is pushed.
func newPusher(cfg *configs.Config, policy *push.Policy, log *slog.Logger) (*push.Sender, error) {
	v := cfg.Push.VAPID
	if v.PublicKey == "" {
		log.Warn("push.vapid is not set: nothing will be pushed; relay vapid makes a key pair")
		return nil, nil
	}
	vapid, err := push.NewVAPID(v.Subject, v.PublicKey, v.PrivateKey.Reveal())
	if err != nil {
		return nil, fmt.Errorf("push.vapid: %w", err)
	}
	if warning := vapid.Warning(); warning != "" {
		log.Warn("push.vapid: " + warning)
	}
	return push.NewSender(vapid, policy), nil
}

// adminHosts are the names that the admin listener answers to, so that a page in
// the operator's browser cannot reach it under a name of its own.
func adminHosts(listen string) []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	host := listen[:max(0, strings.LastIndex(listen, ":"))]
	if host = strings.Trim(host, "[]"); host != "" && !slices.Contains(hosts, host) {
		hosts = append(hosts, host)
	}
	return hosts
}
