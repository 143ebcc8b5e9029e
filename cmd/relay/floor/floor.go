// Package floor is the least that any relay of its kind must do, to measure the
// relay against: it verifies and decrypts a webhook, stores it in one script, hands
// it over by a Redis stream, posts it signed, and settles it in one script.
//
// Guarantees: it uses the libraries and the client settings that the relay uses, so
// that what is compared is what the relay adds.
//
// Non-goals: everything that a product needs. It keeps no record but the event, knows
// no partitions, retries, owners or expiry, seals nothing at rest, and gives up what
// fails.
package floor

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/redis/go-redis/v9"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"approvalrelay/crypto"
)

var (
	//go:embed arrive.lua
	arriveLua string
	//go:embed settle.lua
	settleLua string

	arrive = redis.NewScript(arriveLua)
	settle = redis.NewScript(settleLua)
)

const (
	prefix   = "floor:"
	queue    = prefix + "queue"
	events   = prefix + "events"
	done     = prefix + "done"
	group    = "floor"
	remember = 10 * time.Minute
	poolSize = 16 // as the relay's
	readWait = 2 * time.Second
	readMost = 64
	bodyMost = 64 << 10
)

// Options of a floor.
type Options struct {
	Redis       string // redis://…
	Keyring     *crypto.Keyring
	URL, Secret string // of the target
	Concurrency int    // of posts to it
}

// Server is an http.Handler for POST /webhooks/:merchant; Run delivers what it takes.
type Server struct {
	http.Handler
	o        Options
	commands *redis.Client
	reader   *redis.Client
	signer   *standardwebhooks.Webhook
	client   *http.Client
}

// New connects to Redis, of which it uses keys that begin with "floor:".
func New(ctx context.Context, o Options) (*Server, error) {
	opt, err := redis.ParseURL(o.Redis)
	if err != nil {
		return nil, errors.New("redis.url: the floor needs redis://") // the error quotes a password
	}
	signer, err := standardwebhooks.NewWebhook(o.Secret)
	if err != nil {
		return nil, errors.New("the target's secret is not whsec_ and base64")
	}
	opt.PoolSize = poolSize
	s := &Server{o: o, commands: redis.NewClient(opt), reader: redis.NewClient(opt), signer: signer, client: &http.Client{
		Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: o.Concurrency},
	}}
	err = s.commands.XGroupCreateMkStream(ctx, queue, group, "0").Err()
	if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") {
		return nil, fmt.Errorf("make the group: %w", err)
	}
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.POST("/webhooks/:merchant", s.webhook)
	s.Handler = engine
	return s, nil
}

// Close ends the connections.
func (s *Server) Close() error { return errors.Join(s.commands.Close(), s.reader.Close()) }

type event struct {
	ID   string          `json:"id"`
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}

func (s *Server) webhook(c *gin.Context) {
	var w struct {
		Type    string `json:"type"`
		Payload string `json:"encrypted_payload"`
		HMAC    string `json:"hmac"`
	}
	if err := c.ShouldBindJSON(&w); err != nil {
		c.Status(http.StatusBadRequest)
		return
	}
	plain, err := s.o.Keyring.Open(w.Payload, w.HMAC)
	if err != nil {
		c.Status(http.StatusUnauthorized)
		return
	}
	var fields map[string]any
	if err := json.Unmarshal(plain, &fields); err != nil {
		c.Status(http.StatusBadRequest)
		return
	}
	sum := sha256.Sum256(plain)
	id := fmt.Sprintf("evt_%x", sum[:16])
	body, err := json.Marshal(event{ID: id, Type: w.Type, Data: plain})
	if err != nil {
		c.Status(http.StatusInternalServerError)
		return
	}
	now := time.Now().UnixMilli()
	first, err := arrive.Run(c.Request.Context(), s.commands, []string{prefix + "dup:" + id, prefix + id, events, queue},
		id, remember.Milliseconds(), now, w.Type, body).Int()
	if err != nil {
		c.Status(http.StatusServiceUnavailable)
		return
	}
	status := "accepted"
	if first == 0 {
		status = "duplicate"
	}
	c.JSON(http.StatusOK, gin.H{"status": status, "event_id": id})
}

// Run delivers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	slots := make(chan struct{}, s.o.Concurrency)
	for ctx.Err() == nil {
		got, err := s.reader.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: group, Consumer: "one", Streams: []string{queue, ">"}, Count: readMost, Block: readWait,
		}).Result()
		if errors.Is(err, redis.Nil) || ctx.Err() != nil {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the queue: %w", err)
		}
		for _, m := range got[0].Messages {
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				s.deliver(ctx, m)
			}()
		}
	}
	return nil
}

func (s *Server) deliver(ctx context.Context, m redis.XMessage) {
	id, _ := m.Values["i"].(string)
	typ, _ := m.Values["t"].(string)
	body, _ := m.Values["d"].(string)
	outcome := "delivered"
	if err := s.post(ctx, id, typ, []byte(body)); err != nil {
		outcome = "failed"
	}
	// What cannot be settled stays in the stream, which nobody reads again.
	_ = settle.Run(ctx, s.commands, []string{queue, done}, group, m.ID, id, outcome).Err()
}

func (s *Server) post(ctx context.Context, id, typ string, body []byte) error {
	now := time.Now()
	signature, err := s.signer.Sign(id, now, body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.o.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("webhook-signature", signature)
	req.Header.Set("X-Relay-Event-Type", typ)
	req.Header.Set("X-Relay-Attempt", "1")
	res, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, bodyMost)); err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}
