package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/process"
)

// A Process is a server that was started here and is ended by its process id.
type Process struct {
	*HTTP
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended and its output was read
	tail   tail
}

// ready is in the line that the server prints when it takes requests.
var ready = regexp.MustCompile(`^ready in .*?: (http://\S+)`)

// drain is how long a server may take to end before it is killed.
const drain = 20 * time.Second

// Start runs a command and waits until it prints its address in a line "ready in ...: http://HOST:PORT" on standard error. It fails with
// the last lines of that if the command ends before, or if ctx ends. Stop must be called on what it returns.
func Start(ctx context.Context, name string, command []string, env []string) (*Process, error) {
	p := &Process{cmd: exec.Command(command[0], command[1:]...), exited: make(chan struct{})}
	p.cmd.Env = env
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	address := make(chan string, 1)
	go func() {
		defer close(p.exited)
		p.watch(stderr, address)
		p.cmd.Wait() // its status says nothing that the last lines do not
	}()
	select {
	case url := <-address:
		if p.HTTP, err = ParseHTTP(name+"="+url, ""); err == nil {
			err = p.HTTP.Model(ctx)
		}
		if err == nil {
			return p, nil
		}
	case <-p.exited:
		err = fmt.Errorf("%s ended before it was ready:\n%s", name, p.tail.String())
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return nil, errors.Join(err, p.Stop())
}

func (p *Process) watch(stderr io.Reader, address chan<- string) {
	sc := bufio.NewScanner(stderr)
	for sc.Scan() {
		p.tail.add(sc.Text())
		if m := ready.FindStringSubmatch(sc.Text()); m != nil {
			select {
			case address <- m[1]:
			default: // only the first line counts
			}
		}
	}
	io.Copy(io.Discard, stderr) // after a line too long for the scanner: the process must not block on a full pipe
}

// CPU implements Meter.
func (p *Process) CPU() (time.Duration, error) { return CPU(p.cmd.Process.Pid) }

// CPU returns the processor time, user and system, that the system has counted for a process over all its threads.
func CPU(pid int) (time.Duration, error) {
	p, err := process.NewProcess(int32(pid))
	if err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}
	t, err := p.Times()
	if err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}
	return time.Duration((t.User + t.System) * float64(time.Second)), nil
}

// Stop ends the process as a service manager would, and kills it if it does not end. A second call does nothing.
func (p *Process) Stop() error {
	if p.HTTP != nil {
		p.HTTP.Close()
	}
	select {
	case <-p.exited:
		return nil
	default:
	}
	if runtime.GOOS != "windows" { // which has no signal to ask with
		if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-p.exited:
			return nil
		case <-time.After(drain):
		}
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.exited
	return nil
}

// A tail keeps the last lines of an output.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines = append(t.lines, line); len(t.lines) > 8 {
		t.lines = t.lines[1:]
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}
