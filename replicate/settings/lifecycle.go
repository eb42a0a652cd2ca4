package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// lifecycle is a lifecycle policy (Amazon ECR User Guide, "Lifecycle policy properties"): what is not known here may remove images
// for a reason that holds at the source alone.
type lifecycle struct {
	Rules []rule `json:"rules"`
}

type rule struct {
	Priority    int    `json:"rulePriority"`
	Description string `json:"description"`
	Selection   struct {
		TagStatus    string   `json:"tagStatus"`
		Prefixes     []string `json:"tagPrefixList"`
		Patterns     []string `json:"tagPatternList"`
		StorageClass string   `json:"storageClass"`
		CountType    string   `json:"countType"`
		CountUnit    string   `json:"countUnit"`
		CountNumber  int      `json:"countNumber"`
	} `json:"selection"`
	Action struct {
		Type        string `json:"type"`
		TargetClass string `json:"targetStorageClass"`
	} `json:"action"`
}

func parseLifecycle(text string) (l lifecycle, err error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return l, fmt.Errorf("not understood: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return l, errors.New("not understood: more than one document")
	}
	for _, r := range l.Rules {
		// sinceImagePulled counts pulls where the image is: those of the source are not the destination's.
		if c := r.Selection.CountType; !slices.Contains([]string{"imageCountMoreThan", "sinceImagePushed", "sinceImageTransitioned"}, c) {
			return l, fmt.Errorf("rule %d: countType %q means something else at the destination, or is not understood", r.Priority, c)
		}
		if a := r.Action.Type; a != "expire" && a != "transition" {
			return l, fmt.Errorf("rule %d: action %q is not understood", r.Priority, a)
		}
	}
	return l, nil
}

// sameLifecycle reports whether two policies say the same; "" is none. It is an error if the one that is there is not understood.
func sameLifecycle(want, have string) (bool, error) {
	if want == "" || have == "" {
		return want == have, nil
	}
	w, err := parseLifecycle(want)
	if err != nil {
		return false, err
	}
	h, err := parseLifecycle(have)
	if err != nil {
		return false, fmt.Errorf("the one that is there: %w", err)
	}
	return reflect.DeepEqual(w.sorted(), h.sorted()), nil
}

func (l lifecycle) sorted() lifecycle {
	for i := range l.Rules {
		s := &l.Rules[i].Selection
		slices.Sort(s.Prefixes)
		slices.Sort(s.Patterns)
		if len(s.Prefixes) == 0 {
			s.Prefixes = nil
		}
		if len(s.Patterns) == 0 {
			s.Patterns = nil
		}
	}
	slices.SortFunc(l.Rules, func(a, b rule) int { return a.Priority - b.Priority })
	return l
}
