package bench

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// rawConn is a client's connection that costs the machine as little as can be, so that the server is what is measured.
type rawConn struct {
	*net.TCPConn
	request []byte
	head    []byte // of the last answer
	ahead   []byte // what was read beyond it
	buf     []byte
}

// dialRaw connects to addr, for GETs of path.
func dialRaw(addr, path string) (*rawConn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil { // a server that hangs is an error
		return nil, err
	}
	return &rawConn{TCPConn: c.(*net.TCPConn), buf: make([]byte, 16*kib),
		request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n\r\n", path, addr, accept)}, nil
}

// ask sends the request and reads the head of its answer, which must be 200; it returns the length of the body.
func (c *rawConn) ask() (int64, error) {
	if _, err := c.Write(c.request); err != nil {
		return 0, err
	}
	have := 0
	for {
		n, err := c.Read(c.buf[have:])
		have += n
		if i := bytes.Index(c.buf[:have], []byte("\r\n\r\n")); i >= 0 {
			c.head, c.ahead = c.buf[:i+4], c.buf[i+4:have]
			break
		}
		if err != nil {
			return 0, err
		}
		if have == len(c.buf) {
			return 0, fmt.Errorf("head of more than %d bytes", have)
		}
	}
	if !bytes.HasPrefix(c.head, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("answer: %s", c.head)
	}
	for line := range strings.Lines(string(c.head)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(k, "Content-Length") {
			return strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("answer without a length: %s", c.head)
}

// drain drops the n bytes of a body in the kernel: MSG_TRUNC on TCP copies nothing (tcp(7)).
func (c *rawConn) drain(n int64) error {
	n -= int64(len(c.ahead))
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	for n > 0 {
		var got uintptr
		var errno syscall.Errno
		err := raw.Read(func(fd uintptr) bool {
			got, _, errno = syscall.Syscall6(syscall.SYS_RECVFROM, fd, 0, uintptr(min(n, mib)), syscall.MSG_TRUNC|syscall.MSG_DONTWAIT, 0, 0)
			return errno != syscall.EAGAIN
		})
		switch {
		case err != nil:
			return err
		case errno == syscall.EINTR:
			continue
		case errno != 0:
			return errno
		case got == 0:
			return io.ErrUnexpectedEOF
		}
		n -= int64(got)
	}
	return nil
}

// repeat asks times times, and compares every body. After the first, answers are read as so many bytes, for all have one
// length.
func (c *rawConn) repeat(times int, body []byte) error {
	n, err := c.ask()
	if err != nil {
		return err
	}
	answer := make([]byte, len(c.head)+int(n))
	head := copy(answer, c.head)
	rest := copy(answer[head:], c.ahead)
	if _, err := io.ReadFull(c, answer[head+rest:]); err != nil {
		return err
	}
	for i := 1; ; i++ {
		if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) || !bytes.Equal(answer[head:], body) {
			return fmt.Errorf("wrong answer: %.300s", answer)
		}
		if i == times {
			return nil
		}
		if _, err := c.Write(c.request); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, answer); err != nil {
			return err
		}
	}
}

// trickle reads body at rate bytes per second until stop is closed or the body ends.
func (c *rawConn) trickle(rate int, body []byte, stop <-chan struct{}) error {
	step := make([]byte, max(1, rate/5))
	tick := time.NewTicker(time.Second / 5)
	defer tick.Stop()
	for have := c.ahead; ; {
		if !bytes.HasPrefix(body, have) {
			return fmt.Errorf("wrong bytes, %d before the end", len(body))
		}
		if body = body[len(have):]; len(body) == 0 {
			return nil
		}
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
		n, err := c.Read(step)
		if have = step[:n]; err != nil {
			return err
		}
	}
}
