# boot ROOT BINARY: systemd as the first process of namespaces of its own, on an overlay of this machine's files, with the unit
# installed as docs/systemd.md says and nothing else to start. It is run by unshare --pid --fork --mount --net --uts --ipc.
set -e
dir=$1 binary=$2 unit=$PWD

# In a control group of its own, which is the root for what follows.
groups=/sys/fs/cgroup
[ "$(stat -f -c %T $groups)" = cgroup2fs ] || groups=/sys/fs/cgroup/systemd
if [ -z "$CONFINED" ]; then
	mkdir "$groups/$(basename "$dir")"
	echo 0 >"$groups/$(basename "$dir")/cgroup.procs"
	CONFINED=yes exec unshare --cgroup sh "$0" "$dir" "$binary"
fi
mount --make-rprivate /
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/up" "$dir/work" "$dir/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/up,workdir=$dir/work" "$dir/root"
cd "$dir/root"

rm -rf etc/systemd/system etc/sysusers.d etc/ecr-mirror var/lib/ecr-mirror
mkdir -p etc/systemd/system etc/sysusers.d etc/ecr-mirror
install -m 755 "$binary" usr/local/bin/ecr-mirror
install -m 644 "$unit/ecr-mirror.service" etc/systemd/system/
install -m 644 "$unit/ecr-mirror.sysusers" etc/sysusers.d/ecr-mirror.conf
install -m 644 "$unit/environment" etc/ecr-mirror/environment
cat >etc/ecr-mirror/config.yaml <<'END'
listen: 127.0.0.1:5000
admin: 127.0.0.1:5001
cache: {size: 1GiB}
mirrors: [{source: {registry: "http://127.0.0.1:5010"}}]
END
printf '[Unit]\nRequires=ecr-mirror.service\n' >etc/systemd/system/test.target

mount -t proc proc proc
mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
if [ $groups = /sys/fs/cgroup ]; then
	mount -t cgroup2 cgroup2 sys/fs/cgroup
else
	mkdir sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
fi
mount -t tmpfs -o mode=755 tmpfs dev
for n in null zero full random urandom tty; do touch "dev/$n" && mount --bind "/dev/$n" "dev/$n"; done
mkdir dev/shm dev/pts old
mount -t tmpfs tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts && ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
ip link set lo up
pivot_root . old
umount -l /old
# It is not to touch the kernel's modules and clock.
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv --bounding-set -sys_module,-sys_time /usr/lib/systemd/systemd --system --unit=test.target
