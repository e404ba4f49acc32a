"""What must survive: killed processes, power cuts, damage, a full disk, a failing one."""
