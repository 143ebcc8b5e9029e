package browsertest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// marionette speaks Firefox's remote protocol: JSON with its length before it,
// over TCP. A command is [0, id, name, parameters], its answer [1, id, error,
// result].
type marionette struct {
	mu   sync.Mutex // one command at a time
	conn net.Conn
	r    *bufio.Reader
	last int
}

// commandTime bounds one command, a page's load included.
const commandTime = 30 * time.Second

// dialMarionette connects and opens a session.
func dialMarionette(addr string) (*marionette, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	m := &marionette{conn: conn, r: bufio.NewReader(conn)}
	if _, err := m.read(); err != nil { // it introduces itself
		return nil, errors.Join(err, conn.Close())
	}
	return m, m.do("WebDriver:NewSession", map[string]any{"capabilities": map[string]any{}}, nil)
}

func (m *marionette) read() (json.RawMessage, error) {
	if err := m.conn.SetReadDeadline(time.Now().Add(commandTime)); err != nil {
		return nil, err
	}
	length, err := m.r.ReadString(':')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(length[:len(length)-1])
	if err != nil {
		return nil, fmt.Errorf("a length: %w", err)
	}
	data := make([]byte, n)
	_, err = io.ReadFull(m.r, data)
	return data, err
}

// do runs a command and reads its result into the given place, unless that is
// nil. An error of the browser is a *driverError.
func (m *marionette) do(name string, parameters map[string]any, into any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	data, err := json.Marshal([]any{0, m.last, name, parameters})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(m.conn, "%d:%s", len(data), data); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	answer, err := m.read()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var parts [4]json.RawMessage
	if err := json.Unmarshal(answer, &parts); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if string(parts[1]) != strconv.Itoa(m.last) {
		return fmt.Errorf("%s: the answer is to command %s, not %d", name, parts[1], m.last)
	}
	if string(parts[2]) != "null" {
		failure := &driverError{command: name}
		return errors.Join(json.Unmarshal(parts[2], failure), failure)
	}
	if into == nil {
		return nil
	}
	var result struct{ Value json.RawMessage }
	if json.Unmarshal(parts[3], &result) != nil || result.Value == nil {
		result.Value = parts[3] // lists come without their member
	}
	return json.Unmarshal(result.Value, into)
}

// driverError is what the browser answers to a command that it cannot carry out.
type driverError struct {
	command string
	Code    string `json:"error"`
	Message string `json:"message"`
}

func (e *driverError) Error() string { return e.command + ": " + e.Code + ": " + e.Message }

// script runs a function's body in the page and returns its value.
func (m *marionette) script(body string, into any, args ...any) error {
	if args == nil {
		args = []any{}
	}
	return m.do("WebDriver:ExecuteScript", map[string]any{"script": body, "args": args}, into)
}
