package browsertest

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// desktop is the session bus of a desktop with its notification daemon
// (Desktop Notifications Specification 1.2), on which a browser shows what it
// would show to a person, and hears which button was pressed. A browser started
// with environment of it knows no other bus.
type desktop struct {
	t        testing.TB
	listener net.Listener

	mu      sync.Mutex
	clients map[*busClient]bool
	count   uint32
	shown   []notice
}

// notice is one call of Notify: a notification that is shown, or replaces one.
type notice struct {
	At       time.Time
	ID       uint32
	Replaces uint32 // 0: none
	Summary  string
	Body     string
	Actions  []string // keys and labels in turn, as they came
	Silent   bool
	client   *busClient
}

// busClient is one connection of a browser.
type busClient struct {
	name string
	mu   sync.Mutex // one message is written at a time
	conn net.Conn
	last uint32
}

const (
	busName    = "org.freedesktop.DBus"
	daemonName = "org.freedesktop.Notifications"
	daemonPath = "/org/freedesktop/Notifications"
	daemonID   = ":1.0" // its unique name
)

// newDesktop starts one for the duration of the test.
func newDesktop(t testing.TB) *desktop {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(shortDir(t), "bus"))
	if err != nil {
		t.Fatal(err)
	}
	d := &desktop{t: t, listener: listener, clients: map[*busClient]bool{}}
	t.Cleanup(d.close)
	go d.accept()
	return d
}

// environment is what a program must be started with to be on this desktop.
func (d *desktop) environment() []string {
	return []string{"DBUS_SESSION_BUS_ADDRESS=unix:path=" + d.listener.Addr().String(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent"}
}

func (d *desktop) close() {
	_ = d.listener.Close()
	if d.t.Failed() {
		d.t.Logf("shown were %+v", d.notices())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.clients {
		_ = c.conn.Close()
	}
}

func (d *desktop) accept() {
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		c := &busClient{conn: conn, name: fmt.Sprintf(":1.%d", len(d.clients)+1)}
		d.clients[c] = true
		d.mu.Unlock()
		go d.serve(c)
	}
}

// serve reads one connection to its end, which is the browser's.
func (d *desktop) serve(c *busClient) {
	r := bufio.NewReader(c.conn)
	if authenticate(c.conn, r) != nil {
		return
	}
	for {
		m, err := readMessage(r)
		if err != nil {
			return
		}
		if m.kind == methodCall {
			d.answer(c, m)
		}
	}
}

func (d *desktop) answer(c *busClient, m *busMessage) {
	reply := &busMessage{kind: methodReturn, fields: map[byte]any{
		fieldReplySerial: m.serial, fieldDestination: c.name, fieldSender: busName,
	}}
	if m.text(fieldDestination) == daemonName || m.text(fieldDestination) == daemonID {
		reply.fields[fieldSender] = daemonID
	}
	var ok bool
	if reply.body, ok = d.call(c, m); !ok {
		reply.kind = methodError
		reply.fields[fieldErrorName] = busName + ".Error.UnknownMethod"
		reply.body = []any{"there is no such thing on this desktop"}
	}
	if m.flags&noReplyExpected == 0 {
		c.send(reply)
	}
	// Only now: a button of a notification that the browser does not know yet, because
	// the reply names it, would be pressed in vain.
	if m.text(fieldMember) == "Notify" && ok {
		d.record(c, m.body, reply.body[0].(uint32))
	}
}

// call is what the bus and the daemon do; false for what they do not.
func (d *desktop) call(c *busClient, m *busMessage) ([]any, bool) {
	first := ""
	if len(m.body) > 0 {
		first, _ = m.body[0].(string)
	}
	isDaemon := first == daemonName || first == daemonID
	switch m.text(fieldMember) {
	case "Hello":
		return []any{c.name}, true
	case "AddMatch", "RemoveMatch", "Ping":
		return nil, true
	case "RequestName", "ReleaseName":
		return []any{uint32(1)}, true
	case "NameHasOwner":
		return []any{isDaemon || first == busName}, true
	case "GetNameOwner":
		return []any{daemonID}, isDaemon
	case "StartServiceByName":
		return []any{uint32(2)}, isDaemon // it runs already
	case "ListNames", "ListActivatableNames":
		return []any{[]string{busName, daemonName}}, true
	case "GetCapabilities":
		return []any{[]string{"actions", "body", "icon-static", "persistence"}}, true
	case "GetServerInformation":
		return []any{"browsertest", "browsertest", "1.0", "1.2"}, true
	case "Notify":
		return d.notify(m.body)
	case "CloseNotification":
		id, _ := m.body[0].(uint32)
		d.signal(c, "NotificationClosed", id, uint32(3)) // closed by a call
		return nil, true
	}
	return nil, false
}

// notify takes app_name, replaces_id, app_icon, summary, body, actions, hints
// and expire_timeout, and gives the notification its id.
func (d *desktop) notify(body []any) ([]any, bool) {
	if len(body) != 8 {
		return nil, false
	}
	if replaces, _ := body[1].(uint32); replaces != 0 {
		return []any{replaces}, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count++
	return []any{d.count}, true
}

// record keeps what notify took.
func (d *desktop) record(c *busClient, body []any, id uint32) {
	n := notice{At: time.Now(), ID: id, client: c}
	n.Replaces, _ = body[1].(uint32)
	n.Summary, _ = body[3].(string)
	n.Body, _ = body[4].(string)
	actions, _ := body[5].([]any)
	for _, a := range actions {
		text, _ := a.(string)
		n.Actions = append(n.Actions, text)
	}
	hints, _ := body[6].(map[any]any)
	n.Silent, _ = hints["suppress-sound"].(bool)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shown = append(d.shown, n)
}

// notices returns what was shown, oldest first.
func (d *desktop) notices() []notice {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.shown)
}

// await returns the first notice that is as wanted.
func (d *desktop) await(what string, wanted func(n notice) bool) notice {
	d.t.Helper()
	var found notice
	if !until(shownTime, func() bool {
		all := d.notices()
		i := slices.IndexFunc(all, wanted)
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	}) {
		d.t.Fatalf("no notification %s within %s", what, shownTime)
	}
	return found
}

// key is the key of the action with this label, "" when there is none.
func (n notice) key(label string) string {
	for i := 0; i+1 < len(n.Actions); i += 2 {
		if n.Actions[i+1] == label {
			return n.Actions[i]
		}
	}
	return ""
}

// press presses the button with this label, as a person does: the daemon tells
// the action and takes the notification away.
func (d *desktop) press(n notice, label string) {
	d.t.Helper()
	key := n.key(label)
	if key == "" {
		d.t.Fatalf("the notification %q has no button %q: %q", n.Summary, label, n.Actions)
	}
	d.invoke(n, key)
}

// tap presses the notification itself.
func (d *desktop) tap(n notice) { d.invoke(n, "default") }

func (d *desktop) invoke(n notice, key string) {
	d.signal(n.client, "ActionInvoked", n.ID, key)
	d.signal(n.client, "NotificationClosed", n.ID, uint32(2)) // dismissed by the user
}

func (d *desktop) signal(c *busClient, member string, body ...any) {
	c.send(&busMessage{kind: signal, flags: noReplyExpected, body: body, fields: map[byte]any{
		fieldPath: daemonPath, fieldInterface: daemonName, fieldMember: member, fieldSender: daemonID,
	}})
}

// send gives the message its serial. A browser that has gone is seen elsewhere.
func (c *busClient) send(m *busMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	m.serial = c.last
	_, _ = c.conn.Write(m.encode())
}
