package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"approvalrelay/cmd/relay/sim"
	"approvalrelay/configs"
)

// streamBench opens event streams, one for each cardholder, and posts challenges of
// them all. It reads the streams by hand: the client of net/http would take more
// memory and time on this machine than the relay does.
type streamBench struct {
	*benchRun
	admin  string
	open   []net.Conn // by cardholder
	reads  sync.WaitGroup
	closed atomic.Bool // by us
	nEnded,
	nForeign atomic.Int64
}

// streamReport is what a run measured. Bytes are the relay's, for each stream: of the
// whole process as the kernel counts it, with what its collector has yet to free; and
// of the heap and the stacks in use. Twice: as soon as all were open, and after the
// load.
type streamReport struct {
	benchReport
	Streams int        `json:"streams"`
	Ended   int        `json:"ended"`   // streams that the relay ended before us
	Foreign int        `json:"foreign"` // events of another cardholder
	Open    streamCost `json:"bytes_per_stream"`
	Loaded  streamCost `json:"bytes_per_stream_after_load"`
}

type streamCost struct {
	Resident float64 `json:"resident"`
	InUse    float64 `json:"heap_and_stacks"`
}

func (r streamReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	r.benchReport.print(w, "relay")
	fmt.Fprintf(w, "%d streams, %d ended early, %d events of somebody else\n", r.Streams, r.Ended, r.Foreign)
	for _, m := range []struct {
		when string
		streamCost
	}{{"all open", r.Open}, {"after the load", r.Loaded}} {
		fmt.Fprintf(w, "%-20s resident %.1f KiB, heap and stacks in use %.1f KiB per stream\n", m.when, m.Resident/1024, m.InUse/1024)
	}
	return nil
}

// benchStreams needs none of the outside parties: nobody has a device, and nothing is
// decided.
func benchStreams(ctx context.Context, cfg *configs.Config, load benchLoad) (streamReport, error) {
	merchant, err := oneMerchant(cfg, "")
	if err != nil {
		return streamReport{}, err
	}
	key, err := cfg.Merchants[merchant].Secrets[0].Key()
	if err != nil {
		return streamReport{}, fmt.Errorf("merchants.%s.secrets: %w", merchant, err)
	}
	b := newStreamBench(cfg, load, merchant, key)
	defer b.closeStreams()
	return b.measure(ctx)
}

func newStreamBench(cfg *configs.Config, load benchLoad, merchant string, key []byte) *streamBench {
	b := &bench{
		cfg: cfg, merchant: merchant, who: newWho(), client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: load.connections}},
		issuer: sim.NewIssuer(merchant, key, ""), push: sim.NewPushService(""), sink: sim.NewDownstream(),
	}
	return &streamBench{
		benchRun: b.newRun(load, localAddress(cfg.Server.Listen)), admin: "http://" + localAddress(cfg.Server.AdminListen), open: make([]net.Conn, load.users),
	}
}

func (b *streamBench) measure(ctx context.Context) (r streamReport, err error) {
	idle, err := b.memory(ctx)
	if err != nil {
		return r, err
	}
	if err := b.openStreams(ctx); err != nil {
		return r, fmt.Errorf("open the streams: %w", err)
	}
	if r.Open, err = b.cost(ctx, idle); err != nil {
		return r, err
	}
	start := time.Now()
	if err := b.fire(ctx, start); err != nil {
		return streamReport{}, err
	}
	sending := time.Since(start)
	b.settle(ctx)
	if r.Loaded, err = b.cost(ctx, idle); err != nil {
		return r, err
	}
	b.closeStreams()
	r.benchReport = b.report(start, sending)
	r.Streams, r.Ended, r.Foreign = len(b.open), int(b.nEnded.Load()), int(b.nForeign.Load())
	return r, nil
}

// openStreams returns when every cardholder has had the snapshot.
func (b *streamBench) openStreams(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(b.load.connections)
	for i := range b.open {
		g.Go(func() error { return b.openStream(ctx, i) })
	}
	return g.Wait()
}

func (b *streamBench) openStream(ctx context.Context, i int) error {
	token, err := mintToken(b.cfg, b.user(i), b.merchant, time.Now().Add(time.Hour))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.base()+"/v1/events", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", req.URL.Host)
	if err != nil {
		return err
	}
	b.open[i] = conn
	if err := req.Write(conn); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	began := make(chan struct{})
	ended := make(chan struct{})
	b.reads.Go(func() {
		defer close(ended)
		b.read(i, res.Body, began)
	})
	select {
	case <-began:
		return nil
	case <-ended:
		return errors.New("a stream ended before its snapshot")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxStreamLine holds a snapshot of a hundred challenges.
const maxStreamLine = 1 << 20

// read takes a cardholder's events until the stream ends. A challenge comes again
// with every change of it; the first time counts.
func (b *streamBench) read(i int, body io.Reader, began chan<- struct{}) {
	card := "card-" + b.user(i)
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxStreamLine)
	event := ""
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case name == "event":
			event = value
		case name == "data" && event == "snapshot" && began != nil:
			close(began)
			began = nil
		case name == "data" && event == "challenge":
			b.take(card, value, time.Now())
		}
	}
	if !b.closed.Load() {
		b.nEnded.Add(1)
	}
}

func (b *streamBench) take(card, data string, at time.Time) {
	var c struct {
		ID   string
		Card struct{ ID string }
	}
	if err := json.Unmarshal([]byte(data), &c); err != nil || len(c.ID) < 5 || c.Card.ID != card {
		b.nForeign.Add(1)
		return
	}
	if _, again := b.arrived.Load(c.ID[4:]); !again {
		b.arrive(c.ID[4:], at)
	}
}

func (b *streamBench) closeStreams() {
	b.closed.Store(true)
	for _, conn := range b.open {
		if conn != nil {
			_ = conn.Close() // it may be closed already
		}
	}
	b.reads.Wait()
	b.client.CloseIdleConnections() // also those that were opened in vain, for which a server that stops would wait
}

// cost is what each stream has added to the relay's memory.
func (b *streamBench) cost(ctx context.Context, idle streamCost) (streamCost, error) {
	now, err := b.memory(ctx)
	n := float64(len(b.open))
	return streamCost{(now.Resident - idle.Resident) / n, (now.InUse - idle.InUse) / n}, err
}

// memory asks the relay for its own.
func (b *streamBench) memory(ctx context.Context) (m streamCost, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.admin+"/metrics", nil)
	if err != nil {
		return m, err
	}
	res, err := b.client.Do(req)
	if err != nil {
		return m, fmt.Errorf("read the relay's metrics: %w", err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		v, _ := strconv.ParseFloat(value, 64) // of a comment it fails, and is not used
		switch name {
		case "process_resident_memory_bytes":
			m.Resident = v
		case "go_memstats_heap_inuse_bytes", "go_memstats_stack_inuse_bytes":
			m.InUse += v
		}
	}
	if m.Resident == 0 || m.InUse == 0 {
		return m, errors.New("the relay's metrics do not tell its memory")
	}
	return m, lines.Err()
}
