package sim

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxPushBody is the largest body every push service must take (RFC 8030,
// section 7.2), and the largest that the real ones do.
const maxPushBody = 4096

// PushService plays a browser's push service and the browsers behind it: an
// http.Handler that takes pushes to the devices it handed out, and decrypts
// them as each device would.
type PushService struct {
	Journal[Notification]
	Script[*Device]
	vapidKey string
	mu       sync.Mutex
	devices  map[string]*Device // by the last part of the endpoint
	keep     int
}

// Device is one browser's push subscription. Its journal holds what reached
// this device, with or without a fault.
type Device struct {
	Journal[Notification]
	Endpoint string
	P256dh   string // uncompressed P-256 point, base64url
	Auth     string // 16 bytes, base64url
	private  *ecdh.PrivateKey
	auth     []byte
}

// Notification is one push that arrived.
type Notification struct {
	At      time.Time
	Device  *Device // nil when the endpoint is nobody's
	TTL     int     // seconds
	Urgency string
	Topic   string
	Payload map[string]any // decrypted, numbers as json.Number; nil when it could not be
	Raw     []byte         // the decrypted bytes
	Status  int            // what was answered, 0: nothing
	Fault   string         // why it was refused, "" if it was not
}

// NewPushService makes a push service that takes pushes signed with the given
// VAPID public key only (base64url, as in PushManager.subscribe), or, if it is
// empty, with whatever key the push itself names.
func NewPushService(vapidPublicKey string) *PushService {
	return &PushService{
		vapidKey: strings.TrimRight(vapidPublicKey, "="),
		devices:  make(map[string]*Device),
	}
}

// Subscribe makes a new device with fresh keys whose endpoint is below baseURL
// (scheme://host, where this handler is reached).
func (p *PushService) Subscribe(baseURL string) *Device {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		panic("sim: push: " + err.Error())
	}
	auth := make([]byte, 16)
	rand.Read(auth)
	token := rand.Text()
	d := newDevice(strings.TrimRight(baseURL, "/")+"/push/"+token, private, auth)
	p.mu.Lock()
	defer p.mu.Unlock()
	d.Keep(p.keep)
	p.devices[token] = d
	return d
}

func newDevice(endpoint string, private *ecdh.PrivateKey, auth []byte) *Device {
	return &Device{
		Endpoint: endpoint, private: private, auth: auth,
		P256dh: base64.RawURLEncoding.EncodeToString(private.PublicKey().Bytes()),
		Auth:   base64.RawURLEncoding.EncodeToString(auth),
	}
}

// Keep bounds the records of the service and of each device, present and to
// come, to the last n; see Journal.
func (p *PushService) Keep(n int) {
	p.Journal.Keep(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep = n
	for _, d := range p.devices {
		d.Keep(n)
	}
}

// Notifications returns what arrived for all devices, oldest first, as far as
// kept.
func (p *PushService) Notifications() []Notification { return p.Journal.all() }

// Notifications returns what arrived for this device, oldest first, as far as
// kept.
func (d *Device) Notifications() []Notification { return d.all() }

// JSON is the subscription in the form of PushSubscription.toJSON (W3C Push
// API).
func (d *Device) JSON() []byte {
	return mustMarshal(map[string]any{
		"endpoint": d.Endpoint, "expirationTime": nil,
		"keys": map[string]string{"p256dh": d.P256dh, "auth": d.Auth},
	})
}

// Format keeps the keys and the endpoint, which is a capability, out of every
// fmt verb.
func (d *Device) Format(f fmt.State, _ rune) { fmt.Fprint(f, "sim.Device") }

// MarshalText is Format for encoding/json and slog. The subscription is JSON.
func (d *Device) MarshalText() ([]byte, error) { return []byte("sim.Device"), nil }

// ServeHTTP takes one push: 404 for an endpoint that is nobody's, 401 for VAPID,
// 413 for a body over 4096 bytes, 400 for headers and encryption; else 201 with
// Location.
func (p *PushService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	device := p.devices[path.Base(r.URL.Path)]
	p.mu.Unlock()
	n := Notification{
		At: time.Now(), Device: device,
		Urgency: r.Header.Get("Urgency"), Topic: r.Header.Get("Topic"),
	}
	behaviour := p.next(device)
	body, err := readBody(w, r)
	if err != nil {
		behaviour = Behaviour{}
	} else {
		err = p.receive(&n, r.Header, body)
	}
	n.Status, n.Fault = behaviour.answered(err, http.StatusCreated), faultText(err)
	if device != nil {
		device.add(n, err != nil)
	}
	p.add(n, err != nil)
	behaviour.play(w, r, n.Status)
	if n.Status == http.StatusCreated {
		w.Header().Set("Location", origin(device.Endpoint)+"/message/"+rand.Text())
		w.Header().Set("TTL", strconv.Itoa(n.TTL))
	}
	w.WriteHeader(n.Status)
	// The sender may have gone; the push is recorded as it was taken.
	_, _ = fmt.Fprint(w, n.Fault)
}

// topicForm is RFC 8030, section 5.4: at most 32 characters of base64url.
var topicForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

func (p *PushService) receive(n *Notification, header http.Header, body []byte) error {
	if n.Device == nil {
		return refuse(http.StatusNotFound, "no such subscription")
	}
	if err := verifyVAPID(header.Get("Authorization"), p.vapidKey, origin(n.Device.Endpoint), n.At); err != nil {
		return refuse(http.StatusUnauthorized, "Authorization: %v", err)
	}
	ttl, err := strconv.ParseUint(header.Get("TTL"), 10, 31)
	if err != nil {
		return refuse(http.StatusBadRequest, "TTL is missing or not in seconds")
	}
	n.TTL = int(ttl)
	switch {
	case n.Urgency != "" && n.Urgency != "very-low" && n.Urgency != "low" && n.Urgency != "normal" && n.Urgency != "high":
		return refuse(http.StatusBadRequest, "Urgency is none of very-low, low, normal, high")
	case header.Values("Topic") != nil && !topicForm.MatchString(n.Topic):
		return refuse(http.StatusBadRequest, "Topic is not 1 to 32 base64url characters")
	case header.Get("Content-Encoding") != "aes128gcm":
		return refuse(http.StatusBadRequest, "Content-Encoding is not aes128gcm")
	case len(body) > maxPushBody:
		return refuse(http.StatusRequestEntityTooLarge, "body is over %d bytes", maxPushBody)
	}
	if n.Raw, err = n.Device.decrypt(body); err != nil {
		return refuse(http.StatusBadRequest, "encryption: %v", err)
	}
	if n.Payload, err = object(n.Raw); err != nil {
		return refuse(http.StatusBadRequest, "payload: %v", err)
	}
	return nil
}

// origin is the ASCII serialisation of a URL's origin (RFC 6454, section 6.2),
// without the scheme's default port.
func origin(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return u.Scheme + "://" + host
}
