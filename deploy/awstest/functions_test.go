package awstest

import (
	"fmt"
	"regexp"
	"strings"
)

// value evaluates the functions in v.
func (s *stack) value(v any) any {
	switch v := v.(type) {
	case []any:
		l := []any{}
		for _, one := range v {
			if one := s.value(one); one != (noValue{}) {
				l = append(l, one)
			}
		}
		return l
	case map[string]any:
		if len(v) == 1 {
			for name, arg := range v {
				if name == "Ref" || strings.HasPrefix(name, "Fn::") {
					return s.function(name, arg)
				}
			}
		}
		m := map[string]any{}
		for key, one := range v {
			if one := s.value(one); one != (noValue{}) {
				m[key] = one
			}
		}
		return m
	}
	return v
}

func (s *stack) function(name string, arg any) any {
	args, _ := arg.([]any)
	switch name {
	case "Ref":
		return s.ref(arg.(string))
	case "Fn::If":
		if s.condition(args[0].(string)) {
			return s.value(args[1])
		}
		return s.value(args[2])
	case "Fn::Sub":
		text, more := arg, map[string]any{}
		if args != nil {
			text, more = args[0], args[1].(map[string]any)
		}
		return variable.ReplaceAllStringFunc(text.(string), func(m string) string {
			key := m[2 : len(m)-1]
			if v, ok := more[key]; ok {
				return fmt.Sprint(s.value(v))
			}
			if id, attribute, ok := strings.Cut(key, "."); ok {
				return fmt.Sprint(s.attribute(id, attribute))
			}
			return fmt.Sprint(s.ref(key))
		})
	case "Fn::Join":
		var all []string
		for _, one := range s.value(args[1]).([]any) {
			all = append(all, fmt.Sprint(one))
		}
		return strings.Join(all, args[0].(string)) // a delimiter is no function
	case "Fn::Split":
		return list(strings.Split(s.value(args[1]).(string), args[0].(string)))
	case "Fn::Select":
		i, all := args[0].(int), s.value(args[1]).([]any)
		if i >= len(all) {
			fail("Fn::Select: %d of %d", i, len(all))
		}
		return all[i]
	case "Fn::GetAtt":
		return s.attribute(args[0].(string), args[1].(string))
	}
	fail("%s is not known", name)
	return nil
}

var variable = regexp.MustCompile(`\$\{[A-Za-z0-9:.]+\}`)

func (s *stack) condition(name string) bool {
	c, ok := section(s.template, "Conditions")[name]
	if !ok {
		fail("no condition %s", name)
	}
	return s.truth(c)
}

func (s *stack) truth(c any) bool {
	for name, arg := range c.(map[string]any) {
		args, _ := arg.([]any)
		switch name {
		case "Condition":
			return s.condition(arg.(string))
		case "Fn::Equals":
			return fmt.Sprint(s.value(args[0])) == fmt.Sprint(s.value(args[1]))
		case "Fn::Not":
			return !s.truth(args[0])
		case "Fn::And", "Fn::Or":
			for _, one := range args {
				if s.truth(one) == (name == "Fn::Or") {
					return name == "Fn::Or"
				}
			}
			return name == "Fn::And"
		}
	}
	fail("no condition: %v", c)
	return false
}

// ref is a parameter, what AWS knows of the stack, or what a resource of this template is called.
func (s *stack) ref(name string) any {
	if v, ok := s.params[name]; ok {
		return v
	}
	partition, suffix := "aws", "amazonaws.com"
	switch {
	case strings.HasPrefix(s.region, "cn-"):
		partition, suffix = "aws-cn", "amazonaws.com.cn"
	case strings.HasPrefix(s.region, "us-gov-"):
		partition = "aws-us-gov"
	}
	switch name {
	case "AWS::NoValue":
		return noValue{}
	case "AWS::AccountId":
		return s.account
	case "AWS::Region":
		return s.region
	case "AWS::Partition":
		return partition
	case "AWS::URLSuffix":
		return suffix
	}
	kind, props := s.named(name)
	switch kind {
	case "AWS::SQS::Queue":
		return "https://sqs." + s.region + "." + s.ref("AWS::URLSuffix").(string) + "/" + s.account + "/" + s.value(props["QueueName"]).(string)
	case "AWS::Events::Rule":
		return s.value(props["Name"])
	}
	fail("Ref: %s, a %s", name, kind)
	return nil
}

func (s *stack) attribute(id, name string) any {
	kind, props := s.named(id)
	prefix := "arn:" + s.ref("AWS::Partition").(string) + ":"
	switch kind + "." + name {
	case "AWS::SQS::Queue.Arn":
		return prefix + "sqs:" + s.region + ":" + s.account + ":" + s.value(props["QueueName"]).(string)
	case "AWS::SQS::Queue.QueueName":
		return s.value(props["QueueName"])
	case "AWS::Events::Rule.Arn":
		return prefix + "events:" + s.region + ":" + s.account + ":rule/" + s.value(props["Name"]).(string)
	case "AWS::IAM::Role.Arn":
		return prefix + "iam::" + s.account + ":role/" + s.value(props["RoleName"]).(string)
	}
	fail("Fn::GetAtt: %s.%s, a %s", id, name, kind)
	return nil
}

func (s *stack) named(id string) (kind string, props map[string]any) {
	r, ok := section(s.template, "Resources")[id].(map[string]any)
	if !ok {
		fail("%s is neither a parameter nor a resource", id)
	}
	return r["Type"].(string), section(r, "Properties")
}
