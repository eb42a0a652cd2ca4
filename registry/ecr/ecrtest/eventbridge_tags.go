package ecrtest

import (
	"maps"
	"slices"
	"strings"
)

type keyValue struct{ Key, Value string }

// tagsIn is the input of what EventBridge does with tags.
type tagsIn struct {
	ResourceARN string
	Tags        []keyValue
	TagKeys     []string
}

// tagged returns the tags of a rule, which alone has any here.
func (b *bus) tagged(arn string) (map[string]string, error) {
	r, err := b.rule(strings.TrimPrefix(arn, b.arn("rule/")))
	if err != nil {
		return nil, err
	}
	return r.tags, nil
}

func (b *bus) listTags(_ *Emulator, in tagsIn) (any, error) {
	tags, err := b.tagged(in.ResourceARN)
	all := []keyValue{}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		all = append(all, keyValue{key, tags[key]})
	}
	return map[string]any{"Tags": all}, err
}

func (b *bus) tag(_ *Emulator, in tagsIn) (any, error) {
	tags, err := b.tagged(in.ResourceARN)
	for _, t := range in.Tags {
		if err == nil {
			tags[t.Key] = t.Value
		}
	}
	return empty{}, err
}

func (b *bus) untag(_ *Emulator, in tagsIn) (any, error) {
	tags, err := b.tagged(in.ResourceARN)
	for _, key := range in.TagKeys {
		delete(tags, key)
	}
	return empty{}, err
}
