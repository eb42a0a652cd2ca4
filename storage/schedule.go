package storage

// schedule says which bytes of a fill are in the file, which are being fetched, and which to fetch next. It does no I/O and
// has no lock. Its unit is a segment. A segment has one owner at a time and its bytes come in order, so what it has is a
// prefix of it; a run that breaks leaves the rest to the next owner.
type schedule struct {
	size  int64
	left  int64   // bytes not in the file
	have  []int32 // bytes from the start of each segment that are in the file
	busy  []bool  // segments that a run owns
	waits []*wait // positions that readers wait at, oldest first
}

// wait is a reader that needs the bytes from pos on, at most to end.
type wait struct{ pos, end int64 }

// run is bytes that one stream fetches, in order: at moves on to end.
type run struct{ at, end int64 }

// newSchedule plans a blob of size bytes; the segments in bits, a fill file's, are there already.
func newSchedule(size int64, bits []byte) *schedule {
	n := segments(size, segmentSize)
	s := &schedule{size: size, left: size, have: make([]int32, n), busy: make([]bool, n)}
	for i := range s.have {
		if i/8 < len(bits) && bits[i/8]&(1<<(i%8)) != 0 {
			s.have[i] = int32(s.length(i))
			s.left -= s.length(i)
		}
	}
	return s
}

func (s *schedule) length(i int) int64 { return min(segmentSize, s.size-int64(i)*segmentSize) }

func (s *schedule) full(i int) bool { return int64(s.have[i]) == s.length(i) }

func (s *schedule) free(i int) bool { return !s.busy[i] && !s.full(i) }

// has reports whether the byte at pos is in the file.
func (s *schedule) has(pos int64) bool {
	return pos < s.size && pos%segmentSize < int64(s.have[pos/segmentSize])
}

// avail returns the end of the bytes in the file that follow pos without a gap; pos when there are none.
func (s *schedule) avail(pos int64) int64 {
	if !s.has(pos) {
		return pos
	}
	i := int(pos / segmentSize)
	for i < len(s.have)-1 && s.full(i) {
		i++
	}
	return int64(i)*segmentSize + int64(s.have[i])
}

// bits marks the segments that are there whole, as a fill file does.
func (s *schedule) bits() []byte {
	bits := make([]byte, (len(s.have)+7)/8)
	for i := range s.have {
		if s.full(i) {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	return bits
}

// urgent returns a segment that a reader waits for and nobody fetches, and that reader.
func (s *schedule) urgent() (int, *wait, bool) {
	for _, w := range s.waits {
		if p := s.avail(w.pos); p < w.end && s.free(int(p/segmentSize)) {
			return int(p / segmentSize), w, true
		}
	}
	return 0, nil, false
}

// next claims what to fetch next, at most max bytes rounded up to a segment: what a reader waits for, then the rest of what
// readers asked for, then, if all is wanted, what follows the reader that waits longest, and what is before it.
func (s *schedule) next(max int64, all bool) (*run, bool) {
	if i, w, ok := s.urgent(); ok {
		return s.claim(i, max, s.bound(w, all)), true
	}
	for _, w := range s.waits {
		for i := int(w.pos / segmentSize); !all && int64(i)*segmentSize < w.end; i++ {
			if s.free(i) {
				return s.claim(i, max, s.bound(w, all)), true
			}
		}
	}
	if !all {
		return nil, false
	}
	start := 0
	if len(s.waits) > 0 {
		start = int(s.waits[0].pos / segmentSize)
	}
	for k := range s.have {
		if i := (start + k) % len(s.have); s.free(i) {
			return s.claim(i, max, s.size), true
		}
	}
	return nil, false
}

func (s *schedule) bound(w *wait, all bool) int64 {
	if all {
		return s.size
	}
	return w.end
}

// claim makes a run of the free segment i and those that follow it, up to max bytes and to bound.
func (s *schedule) claim(i int, max, bound int64) *run {
	r := &run{at: int64(i)*segmentSize + int64(s.have[i])}
	for {
		s.busy[i] = true
		r.end = int64(i)*segmentSize + s.length(i)
		if i++; i == len(s.have) || !s.free(i) || s.have[i] > 0 || r.end >= bound || r.end-r.at+segmentSize > max {
			return r
		}
	}
}

// got notes that the next n bytes of r are in the file.
func (s *schedule) got(r *run, n int64) {
	for s.left -= n; n > 0; {
		i := int(r.at / segmentSize)
		k := min(n, s.length(i)-int64(s.have[i]))
		s.have[i] += int32(k)
		r.at += k
		n -= k
		if s.full(i) {
			s.busy[i] = false
		}
	}
}

// release gives up what is left of r.
func (s *schedule) release(r *run) {
	for at := r.at; at < r.end; at = (at/segmentSize + 1) * segmentSize {
		s.busy[at/segmentSize] = false
	}
	r.end = r.at
}

func (s *schedule) forget(w *wait) {
	for i, o := range s.waits {
		if o == w {
			s.waits = append(s.waits[:i], s.waits[i+1:]...)
			return
		}
	}
}
