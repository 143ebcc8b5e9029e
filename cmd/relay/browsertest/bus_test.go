package browsertest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// D-Bus, as far as a browser and a desktop's notification daemon speak it
// (D-Bus specification 0.43): one connection at a time to a server that is bus
// and daemon in one. Little-endian only, no file descriptors.

// Message types, flags and header fields of the specification.
const (
	methodCall   = 1
	methodReturn = 2
	methodError  = 3
	signal       = 4

	noReplyExpected = 0x1

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSender      = 7
	fieldSignature   = 8

	maxMessage = 16 << 20 // a notification carries its icon
)

// busMessage is one message. Its body's values are Go's: byte, bool, int16 to
// uint64, float64, string (also for paths and signatures), []any for arrays and
// structs, map[any]any for dictionaries; a variant is its value.
type busMessage struct {
	kind, flags byte
	serial      uint32
	fields      map[byte]any
	body        []any
}

func (m *busMessage) text(field byte) string { text, _ := m.fields[field].(string); return text }

// authenticate plays the server of the SASL exchange that opens a connection:
// whoever reaches the socket may come in.
func authenticate(conn net.Conn, r *bufio.Reader) error {
	if nul, err := r.ReadByte(); err != nil || nul != 0 {
		return fmt.Errorf("D-Bus: the connection does not begin with NUL: %w", err)
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		answer := "ERROR"
		switch words := strings.Fields(line); {
		case line == "BEGIN\r\n":
			return nil
		case line == "AUTH\r\n":
			answer = "REJECTED EXTERNAL"
		case line == "AUTH EXTERNAL\r\n":
			answer = "DATA"
		case strings.HasPrefix(line, "AUTH EXTERNAL "), len(words) > 0 && words[0] == "DATA":
			answer = "OK 1234deadbeef1234deadbeef1234dead" // the bus' id, any 16 bytes
		}
		if _, err := io.WriteString(conn, answer+"\r\n"); err != nil {
			return err
		}
	}
}

// readMessage reads one message whole.
func readMessage(r io.Reader) (*busMessage, error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	if head[0] != 'l' {
		return nil, errors.New("D-Bus: a message that is not little-endian")
	}
	bodyLength, fieldsLength := binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[12:])
	rest := uint64(fieldsLength+7)&^7 + uint64(bodyLength)
	if rest > maxMessage {
		return nil, fmt.Errorf("D-Bus: a message of %d bytes", rest)
	}
	data := append(head, make([]byte, rest)...)
	if _, err := io.ReadFull(r, data[16:]); err != nil {
		return nil, err
	}
	m := &busMessage{kind: head[1], flags: head[2], serial: binary.LittleEndian.Uint32(head[8:]), fields: map[byte]any{}}
	d := &busDecoder{data: data[:uint64(len(data))-uint64(bodyLength)], at: 12}
	fields, _ := d.value("a(yv)").([]any)
	for _, f := range fields {
		pair := f.([]any)
		m.fields[pair[0].(byte)] = pair[1]
	}
	if d.err == nil {
		body := &busDecoder{data: data[uint64(len(data))-uint64(bodyLength):]}
		for _, one := range splitSignature(m.text(fieldSignature)) {
			m.body = append(m.body, body.value(one))
		}
		d.err = body.err
	}
	return m, d.err
}

// splitSignature cuts a signature into its complete types.
func splitSignature(signature string) []string {
	var all []string
	for signature != "" {
		n := typeLength(signature)
		all, signature = append(all, signature[:n]), signature[n:]
	}
	return all
}

// typeLength is how long the first complete type is.
func typeLength(signature string) int {
	switch signature[0] {
	case 'a':
		if len(signature) > 1 {
			return 1 + typeLength(signature[1:])
		}
	case '(', '{':
		depth := 0
		for i, c := range signature {
			switch c {
			case '(', '{':
				depth++
			case ')', '}':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
		return len(signature)
	}
	return 1
}

func alignment(kind byte) int {
	switch kind {
	case 'n', 'q':
		return 2
	case 'i', 'u', 'b', 's', 'o', 'a', 'h':
		return 4
	case 'x', 't', 'd', '(', '{':
		return 8
	}
	return 1
}

// busDecoder reads values one after the other; the first error stays.
type busDecoder struct {
	data []byte
	at   int
	err  error
}

// take returns the next n bytes after aligning, zeros behind the end.
func (d *busDecoder) take(align, n int) []byte {
	d.at = (d.at + align - 1) / align * align
	if d.err == nil && (n < 0 || d.at+n > len(d.data)) {
		d.err = errors.New("D-Bus: a value goes beyond its message")
	}
	if d.err != nil {
		return make([]byte, 8)
	}
	d.at += n
	return d.data[d.at-n : d.at]
}

func (d *busDecoder) value(signature string) any {
	kind := byte('?')
	if signature != "" {
		kind = signature[0]
	}
	order := binary.LittleEndian
	switch kind {
	case 'y':
		return d.take(1, 1)[0]
	case 'b':
		return order.Uint32(d.take(4, 4)) != 0
	case 'n':
		return int16(order.Uint16(d.take(2, 2)))
	case 'q':
		return order.Uint16(d.take(2, 2))
	case 'i', 'h':
		return int32(order.Uint32(d.take(4, 4)))
	case 'u':
		return order.Uint32(d.take(4, 4))
	case 'x', 't', 'd':
		return order.Uint64(d.take(8, 8))
	case 's', 'o':
		return d.text(int(order.Uint32(d.take(4, 4))))
	case 'g':
		return d.text(int(d.take(1, 1)[0]))
	case 'v':
		return d.value(d.text(int(d.take(1, 1)[0])))
	case 'a':
		return d.array(signature[1:])
	case '(', '{':
		d.take(8, 0)
		var all []any
		for _, one := range splitSignature(signature[1 : len(signature)-1]) {
			all = append(all, d.value(one))
		}
		return all
	}
	if d.err == nil {
		d.err = fmt.Errorf("D-Bus: a value of the unknown type %q", signature)
	}
	return nil
}

func (d *busDecoder) text(n int) string {
	if data := d.take(1, n+1); d.err == nil {
		return string(data[:n])
	}
	return ""
}

func (d *busDecoder) array(element string) any {
	n := int(binary.LittleEndian.Uint32(d.take(4, 4)))
	d.take(alignment(element[0]), 0)
	end := d.at + n
	if element == "y" {
		return d.take(1, n)
	}
	all := []any{}
	for d.err == nil && d.at < end {
		all = append(all, d.value(element))
	}
	if element[0] != '{' {
		return all
	}
	dictionary := map[any]any{}
	for _, entry := range all {
		if pair := entry.([]any); d.err == nil {
			dictionary[pair[0]] = pair[1]
		}
	}
	return dictionary
}

// busEncoder writes what the daemon says: bytes, booleans, 32-bit numbers,
// strings and arrays of strings.
type busEncoder struct{ data []byte }

func (e *busEncoder) align(n int) {
	for len(e.data)%n != 0 {
		e.data = append(e.data, 0)
	}
}

func (e *busEncoder) uint32(n uint32) {
	e.align(4)
	e.data = binary.LittleEndian.AppendUint32(e.data, n)
}

func (e *busEncoder) string(text string) {
	e.uint32(uint32(len(text)))
	e.data = append(append(e.data, text...), 0)
}

func (e *busEncoder) signature(text string) {
	e.data = append(append(append(e.data, byte(len(text))), text...), 0)
}

// values appends the body and returns its signature.
func (e *busEncoder) values(values []any) string {
	var signature strings.Builder
	for _, v := range values {
		switch v := v.(type) {
		case bool:
			var n uint32
			if v {
				n = 1
			}
			e.uint32(n)
			signature.WriteByte('b')
		case uint32:
			e.uint32(v)
			signature.WriteByte('u')
		case string:
			e.string(v)
			signature.WriteByte('s')
		case []string:
			inner := busEncoder{}
			for _, text := range v {
				inner.string(text)
			}
			e.uint32(uint32(len(inner.data))) // ends at a multiple of 4, so the inner alignment holds
			e.data = append(e.data, inner.data...)
			signature.WriteString("as")
		default:
			panic(fmt.Sprintf("D-Bus: cannot write a %T", v))
		}
	}
	return signature.String()
}

// encode is the message on the wire. Its fields are strings, and the serial that
// it answers.
func (m *busMessage) encode() []byte {
	body := busEncoder{}
	if signature := body.values(m.body); signature != "" {
		m.fields[fieldSignature] = signature
	}
	fields := busEncoder{data: make([]byte, 16)} // aligned as they will be
	for code := byte(fieldPath); code <= fieldSignature; code++ {
		value, ok := m.fields[code]
		if !ok {
			continue
		}
		fields.align(8)
		fields.data = append(fields.data, code)
		switch {
		case code == fieldReplySerial:
			fields.signature("u")
			fields.uint32(value.(uint32))
		case code == fieldSignature:
			fields.signature("g")
			fields.signature(value.(string))
		case code == fieldPath:
			fields.signature("o")
			fields.string(value.(string))
		default:
			fields.signature("s")
			fields.string(value.(string))
		}
	}
	head := fields.data
	head[0], head[1], head[2], head[3] = 'l', m.kind, m.flags, 1
	binary.LittleEndian.PutUint32(head[4:], uint32(len(body.data)))
	binary.LittleEndian.PutUint32(head[8:], m.serial)
	binary.LittleEndian.PutUint32(head[12:], uint32(len(head)-16))
	fields.data = head
	fields.align(8)
	return append(fields.data, body.data...)
}
